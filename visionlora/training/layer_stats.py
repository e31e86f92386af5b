"""How far each adapted layer has moved, and how hard it is pulled."""

import torch
from torch import Tensor, nn

from visionlora.adapters.layer import adapters_of, methods_of
from visionlora.adapters.sharding import whole_layers


@torch.no_grad()
def layer_statistics(model: nn.Module) -> dict[str, float]:
    """Per adapted parameter: norm of the update over the weight's, and the factors' gradient norms.

    Where the base is sharded, all processes ask together.

    Returns:
        TensorBoard tags -> values, such as ``update_over_weight/blocks.0.attn.qkv``.
    """
    found: dict[str, Tensor] = {}
    for path, layer in whole_layers(model):
        for name in adapters_of(layer).active:
            for parameter, method in methods_of(layer, name).items():
                weight = layer._parameters[parameter]
                assert weight is not None
                layer_name = path if parameter == "weight" else f"{path}.{parameter}"
                found[f"update_over_weight/{layer_name}"] = method.update_norm(weight) / _norm(weight).clamp(min=1e-12)
                for factor, tensor in method.named_parameters():
                    if tensor.grad is not None:
                        found[f"gradient_{factor}/{layer_name}"] = _norm(tensor.grad)
    if not found:
        return {}
    # One wait for the device instead of hundreds.
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.float())
