"""SavedModel folders and .keras files: read with one message for what is wrong, written whole or not at all.

A SavedModel is a graph of operators and files of tensors; loading it runs no Python of its author's. A .keras file is loaded
in Keras's safe mode, which refuses code inside it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from memfit.errors import MissingFrameworkError, OutputError, TargetError
from memfit.ir.program import Program

PROCESS_BYTES = 640_000_000
"""Resident bytes of a process that has imported TensorFlow and run a small function on the CPU."""
_FILES = ("saved_model.pb", "saved_model.pbtxt")


def is_saved_model(path: str | Path) -> bool:
    """Whether a path is a SavedModel folder."""
    return any((Path(path) / name).is_file() for name in _FILES)


def need_tensorflow() -> None:
    """Raise where TensorFlow is not installed.

    Raises:
        MissingFrameworkError: it is not.
    """
    try:
        found = importlib.util.find_spec("tensorflow") is not None
    except ValueError:
        found = False
    if not found:
        raise MissingFrameworkError("tensorflow", "tensorflow")


def load(path: str | Path) -> Any:
    """The concrete function in a SavedModel folder (its signature ``serving_default``, else its first) or a .keras file.

    Raises:
        MissingFrameworkError: TensorFlow is not installed.
        TargetError: it is damaged, has no function, or needs operators that are not there.
    """
    need_tensorflow()
    import tensorflow as tf

    name = str(path)
    try:
        if name.endswith(".keras"):
            return _of_keras(name)
        loaded = tf.saved_model.load(name)
    except TargetError:
        raise
    except Exception as error:  # TensorFlow raises its own kinds, all of them unreadable folders or missing operators
        raise TargetError(name, *_why(error)) from error
    signatures = getattr(loaded, "signatures", {})
    if signatures:
        chosen = signatures["serving_default"] if "serving_default" in signatures else next(iter(signatures.values()))
    else:
        concrete = getattr(getattr(loaded, "__call__", None), "concrete_functions", [])  # noqa: B004
        if not concrete:
            raise TargetError(name, "it holds no function to call", "save it with signatures=...")
        chosen = concrete[0]
    chosen._memfit_keeps = loaded  # the function reads variables that die with what was loaded
    return chosen


def _of_keras(path: str) -> Any:
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise TargetError(path, f"Keras runs on {keras.backend.backend()}", "set KERAS_BACKEND=tensorflow")
    if not Path(path).is_file():
        raise TargetError(path, "there is no such file")
    model = keras.models.load_model(path, compile=False)
    specifications = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    function = tf.function(lambda *inputs: model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))
    concrete = function.get_concrete_function(*specifications)
    concrete._memfit_keeps = model
    return concrete


def _why(error: Exception) -> tuple[str, str]:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if "Op type not registered" in text:
        operator = text.partition("'")[2].partition("'")[0]
        return (
            f"its operator {operator!r} is not part of TensorFlow",
            "load the library that brings it: tf.load_op_library",
        )
    return f"TensorFlow cannot load it ({type(error).__name__}: {text})", "is the folder whole? save the model again"


def program_of_file(path: str | Path) -> Program:
    """The Program of a SavedModel folder or .keras file, every value with its size. Errors: as ``load`` and ``with_sizes``."""
    return captured_file(path).program


def captured_file(path: str | Path) -> Any:
    """As ``program_of_file``, with the values and the forms around it (``capture.Captured``)."""
    function = load(path)
    from memfit.frameworks.tensorflow.capture import capture
    from memfit.frameworks.tensorflow.sizes import with_sizes

    return with_sizes(capture(function, str(path)))


def write(applied: Any, path: str | Path) -> int:
    """Write an applied Program as a SavedModel folder, whole or not at all; returns the bytes of its files.

    Raises:
        OutputError: the folder cannot be written, or exists and is no SavedModel.
    """
    import tensorflow as tf

    path = Path(path)
    if path.exists() and not is_saved_model(path):
        raise OutputError(str(path), "it exists and is no SavedModel folder")
    try:
        with tempfile.TemporaryDirectory(prefix=".memfit-", dir=path.resolve().parent) as folder:
            draft = Path(folder) / "model"
            tf.saved_model.save(applied, str(draft), signatures={"serving_default": _named(applied)})
            if path.exists():
                shutil.rmtree(path)
            os.replace(draft, path)
    except OSError as error:
        raise OutputError(str(path), str(error)) from error
    return folder_bytes(path)


def _named(applied: Any) -> Any:
    """The signature with its results by name, as a saved model needs them."""
    import tensorflow as tf

    signature = applied.signature

    def serve(**arguments: Any) -> Any:
        results = applied._run(*[arguments[name] for name in names])
        flat = tf.nest.flatten(results, expand_composites=True)
        if isinstance(results, dict) and len(flat) == len(results):
            return results
        return {f"output_{index}": tensor for index, tensor in enumerate(flat)}

    specifications = signature.structured_input_signature[0]
    names = [specification.name for specification in specifications]
    return tf.function(serve, autograph=False).get_concrete_function(
        **{name: tf.TensorSpec(s.shape, s.dtype, name=name) for name, s in zip(names, specifications, strict=True)}
    )


def folder_bytes(path: str | Path) -> int:
    """Bytes of all files of a folder, or of the file."""
    path = Path(path)
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
