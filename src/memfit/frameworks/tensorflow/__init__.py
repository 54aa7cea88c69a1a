"""TensorFlow and Keras: concrete functions and SavedModel folders -> Program and back. Only this folder imports tensorflow."""

import os

os.environ.setdefault(
    "TF_CPP_MIN_LOG_LEVEL", "2"
)  # before TensorFlow is imported: what it says of kernels is nobody's answer
