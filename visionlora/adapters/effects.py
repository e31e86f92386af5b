"""What each adapter does to the model's output, as a table."""

from dataclasses import dataclass

from visionlora.adapters.report import table

NOT_RUN = "not run in this mode"
NO_EFFECT = "no effect on the output"
NO_UPDATE = "no update, though other layers have one"


@dataclass(frozen=True)
class Effect:
    """What one adapter on one parameter does to the output.

    Attributes:
        adapter: the adapter's name.
        layer: the layer's name, with the parameter if it is not ``weight``, and with the parts of a fused one.
        update: norm of the update as it is now, relative to the weight's; 0 for a new adapter.
        response: by how much of its own size the output changes, to first order, when each number in the
            factors moves by 0.01 at random; 0 for an adapter that does not reach the output.
        remark: why the adapter has no effect, or an empty string.
    """

    adapter: str
    layer: str
    update: float
    response: float
    remark: str


@dataclass(frozen=True)
class Verification:
    """The result of ``verify``; print it for a table.

    Attributes:
        effects: one for each adapted parameter, in the model's order.
        change: norm of the output's change by all active adapters together, relative to the base's output;
            None for detectors, whose boxes do not correspond from one run to the other.
    """

    effects: list[Effect]
    change: float | None

    @property
    def without_effect(self) -> list[str]:
        """Names of the layers whose adapter does nothing to the output, those of ``not_run`` included."""
        return [effect.layer for effect in self.effects if effect.remark]

    @property
    def not_run(self) -> list[str]:
        """Names of the layers that an eval forward does not use, such as auxiliary heads."""
        return [effect.layer for effect in self.effects if effect.remark == NOT_RUN]

    def __str__(self) -> str:
        several = len({effect.adapter for effect in self.effects}) > 1
        rows = [
            (
                f"{effect.adapter}: {effect.layer}" if several else effect.layer,
                _percent(effect.update),
                _percent(effect.response),
                effect.remark,
            )
            for effect in self.effects
        ]
        without = self.without_effect
        summary = f"{len(rows) - len(without)} of {len(rows)} adapted parameters have an effect"
        if self.change is not None:
            summary += f"; all together they change the output by {_percent(self.change)}"
        named = [f"without effect: {', '.join(without)}"] if without else []
        return "\n".join([table(("layer", "update", "response", ""), rows), summary, *named])


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
