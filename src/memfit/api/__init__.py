"""The verbs: predict, profile, fit. Each composes the layers below; nothing above this one computes."""

from memfit.api.fitted import fit
from memfit.api.prediction import predict
from memfit.api.profiling import profile

__all__ = ["fit", "predict", "profile"]
