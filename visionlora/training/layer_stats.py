"""How far each adapted layer has moved, and how hard it is pulled."""

import torch
from torch import nn

from visionlora.adapters.layer import adapted_layers, adapters_of, methods_of


@torch.no_grad()
def layer_statistics(model: nn.Module) -> dict[str, float]:
    """Per adapted parameter: norm of the update over the weight's, and the factors' gradient norms.

    Returns:
        TensorBoard tags -> values, such as ``update_over_weight/blocks.0.attn.qkv``.
    """
    found: dict[str, float] = {}
    for path, layer in adapted_layers(model):
        for name in adapters_of(layer).active:
            for parameter, method in methods_of(layer, name).items():
                weight = layer._parameters[parameter]
                assert weight is not None
                layer_name = path if parameter == "weight" else f"{path}.{parameter}"
                ratio = method.whole_update(weight).norm() / weight.float().norm().clamp(min=1e-12)
                found[f"update_over_weight/{layer_name}"] = float(ratio)
                for factor, tensor in method.named_parameters():
                    if tensor.grad is not None:
                        found[f"gradient_{factor}/{layer_name}"] = float(tensor.grad.norm())
    return found
