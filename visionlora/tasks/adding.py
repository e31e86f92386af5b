"""torchmetrics' states, of images that several processes share."""

from typing import Any


def state_of(metric: Any) -> dict[str, Any]:
    """What a metric, or each of a collection, has taken in, with tensors on the CPU."""
    from torchmetrics import MetricCollection

    if isinstance(metric, MetricCollection):
        return {name: state_of(one) for name, one in metric.items()}
    return {name: _on_cpu(value) for name, value in metric.metric_state.items()}


def add_state(metric: Any, state: dict[str, Any]) -> None:
    """Add what another of the kind has taken in: counts are summed, and what was of later images is put behind."""
    from torchmetrics import MetricCollection

    for name, value in state.items():
        if isinstance(metric, MetricCollection):
            add_state(metric[name], value)
        else:
            setattr(metric, name, getattr(metric, name) + _on(value, metric.device))


def _on_cpu(value: Any) -> Any:
    return _on(value, "cpu")


def _on(value: Any, device: Any) -> Any:
    if isinstance(value, list):
        return [_on(entry, device) for entry in value]
    return value.to(device) if hasattr(value, "to") else value
