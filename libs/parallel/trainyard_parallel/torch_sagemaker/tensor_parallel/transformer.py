"""Names for the parts of transformed models, for `isinstance` in wrap policies and activation checkpointing.

`tsm.transform` keeps the model's own classes; its layers and the model itself are instances of these as well.
"""

MARK = "_sm_part"


class Part(type):
    def __instancecheck__(cls, instance):
        return instance.__dict__.get(MARK) == cls.part if hasattr(instance, "__dict__") else False


class TransformerLayer(metaclass=Part):
    """Every layer of a transformed model."""

    part = "layer"


class TETransformerLayer(TransformerLayer):
    """The same layers: attention kernels are chosen by torch, not by Transformer Engine."""


class TransformerLMHead(metaclass=Part):
    """A transformed model."""

    part = "model"


def mark(model):
    model.__dict__[MARK] = TransformerLMHead.part
    for layer in model.base_model.layers:
        layer.__dict__[MARK] = TransformerLayer.part
