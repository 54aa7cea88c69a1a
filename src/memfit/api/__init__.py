"""The verbs: predict, profile, fit. Each composes the layers below; nothing above this one computes."""
