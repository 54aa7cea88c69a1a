"""What ONNX operators do to memory. ONNX values never change, so every operator of the standard is pure, a few draw numbers.

``view`` and ``in_place`` are what ONNX Runtime's CPU kernels do; outputs of the model are copied there all the same.
"""

from __future__ import annotations

from dataclasses import replace

from memfit.ir.ops.table import Facts, Table
from memfit.ir.program import Operation

_VIEWS = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout")
_UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Not", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BINARY = ("Add", "Mul", "And", "Or", "Xor", "Sub", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "BitwiseAnd",
           "BitwiseOr", "BitwiseXor")  # fmt: skip
_COMMUTATIVE = frozenset(("Add", "Mul", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal"))
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_PURE = (
    "AffineGrid", "ArgMax", "ArgMin", "Attention", "AveragePool", "BatchNormalization", "BitShift", "BlackmanWindow", "Cast",
    "CastLike", "CenterCropPad", "Col2Im", "Compress", "Concat", "ConcatFromSequence", "Constant", "ConstantOfShape", "Conv",
    "ConvInteger", "ConvTranspose", "CumSum", "CumProd", "DFT", "DeformConv", "DepthToSpace", "DequantizeLinear", "Det",
    "DynamicQuantizeLinear", "Einsum", "Equal", "Expand", "EyeLike", "GRU", "Gather", "GatherElements", "GatherND", "Gemm",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization",
    "HammingWindow", "HannWindow", "Hardmax", "If", "ImageDecoder", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
    "LayerNormalization", "Less", "LessOrEqual", "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "MaxPool",
    "MaxRoiPool", "MaxUnpool", "MeanVarianceNormalization", "MelWeightMatrix", "Mod", "NegativeLogLikelihoodLoss",
    "NonMaxSuppression", "NonZero", "OneHot", "Optional", "OptionalGetElement", "OptionalHasElement", "Pad", "QLinearConv",
    "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "RegexFullMatch",
    "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "STFT", "Scan", "Scatter", "ScatterElements", "ScatterND",
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
    "Shape", "Shrink", "Size", "Slice", "SoftmaxCrossEntropyLoss", "SpaceToDepth", "Split", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "TensorScatter", "TfIdfVectorizer", "Tile", "TopK", "Transpose", "Trilu", "Unique",
    "Upsample", "Where",
)  # fmt: skip
_CLASSIC = (
    "Scaler", "Normalizer", "Binarizer", "LabelEncoder", "ArrayFeatureExtractor", "LinearRegressor",
    "LinearClassifier", "TreeEnsembleRegressor", "TreeEnsembleClassifier", "TreeEnsemble", "ZipMap", "OneHotEncoder",
    "FeatureVectorizer", "Imputer", "CategoryMapper", "DictVectorizer", "SVMClassifier", "SVMRegressor",
)  # fmt: skip
_TRAINING = ("Adam", "Adagrad", "Momentum", "Gradient")
_MICROSOFT = (
    "Attention", "BiasGelu", "BiasSoftmax", "DynamicQuantizeMatMul", "EmbedLayerNormalization", "FastGelu", "FusedConv",
    "FusedGemm", "FusedMatMul", "Gelu", "GroupQueryAttention", "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits",
    "MultiHeadAttention", "NhwcMaxPool", "QAttention", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QuickGelu",
    "RotaryEmbedding", "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
)  # fmt: skip

_ROWS = {name: Facts(name, pure=True) for name in _PURE}
_ROWS |= {name: Facts(name, pure=True, view=0) for name in _VIEWS}
_ROWS |= {name: Facts(name, pure=True, in_place=(0,)) for name in _UNARY}
_ROWS |= {name: Facts(name, pure=True, in_place=(0, 1)) for name in _BINARY}
_ROWS |= {name: Facts(name, random=True) for name in _RANDOM}
_ROWS |= {name: replace(_ROWS[name], commutative=True) for name in _COMMUTATIVE}
_ROWS |= {f"ai.onnx.ml:{name}": Facts(pure=True) for name in _CLASSIC}
_ROWS |= {f"ai.onnx.preview.training:{name}": Facts(pure=True) for name in _TRAINING}
_ROWS |= {f"com.microsoft:{name}": Facts(pure=True) for name in _MICROSOFT}


def _refine(operation: Operation, row: Facts) -> Facts:
    """Dropout that drops is random and no view; what a loop or branch does is what its bodies do."""
    if row.name == "Dropout" and len(operation.inputs) > 2 and operation.inputs[2]:
        return Facts(row.name, random=True)
    if operation.bodies:
        from memfit.ir.ops.table import facts

        inside = [facts(op) for _, body in operation.bodies for op in body.operations]
        if any(not f.pure and not f.random for f in inside):
            return Facts(row.name, holds=True)
        if any(f.random for f in inside):
            return Facts(row.name, random=True)
    return row


TABLE = Table(_ROWS, _refine)
