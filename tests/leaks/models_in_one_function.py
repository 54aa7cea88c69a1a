r"""Models of a search are trained by one tf.function: it keeps a traced graph for every model that it was called with.

source: tensorflow/tensorflow#62854
leaks: traced graphs, and the models in them
holder: train_step|tf\.function|tensorflow|FuncGraph|_function_cache
seen: no
kind: compile-cache
birth: the line that calls the function
steps: 40
needs: tensorflow
"""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf


class Model(tf.Module):
    def __init__(self):
        self.first = tf.Variable(tf.random.normal((64, 64)))
        self.second = tf.Variable(tf.random.normal((64, 1)))

    def __call__(self, values):
        return tf.nn.relu(values @ self.first) @ self.second


@tf.function
def train_step(model, values):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(values)))
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        variable.assign_sub(0.01 * gradient)
    return loss


def main(steps):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    total = 0.0
    for step in range(steps):
        total += float(train_step(Model(), tf.ones((4, 64))))  # born here
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
