"""Named ways to train a network; `xpi train` and the ablation choose among them.

name ─► Recipe ─► objective and turns ─► trainer
"""

from pydantic import Field, model_validator

from xpi_ray.config import Frozen
from xpi_ray.errors import TrainingError
from xpi_ray.networks.progressive import ProgressiveNetwork
from xpi_ray.networks.xpi import XpiNetwork
from xpi_ray.training.data import Track, silent
from xpi_ray.training.losses import Manipulation
from xpi_ray.training.objectives import CrossEntropy, Distilled, Joint, Objective, Prediction
from xpi_ray.training.quantization import CarryQuantization
from xpi_ray.training.stages import JOINT_SHARE, Staged, turns


class Recipe(Frozen):
    """How a network is trained, apart from epochs and learning rates."""

    distilled: bool = False
    """Whether exits learn from the last one, where there is no teacher of their own."""
    front_to_back: bool = False
    """Whether blocks take turns; else all train together to the end."""
    manipulation: Manipulation | None = None
    """What the front block's importance is to become; None leaves it to itself."""
    quantized: bool = False
    """Whether later blocks see carries as the link leaves them."""
    entropy_weight: float = Field(default=0.0, ge=0)
    """Of the bits a value that a quantised carry needs, beside the prediction loss's 1."""

    @model_validator(mode="after")
    def _only_quantized_carries_have_an_entropy(self) -> "Recipe":
        if self.entropy_weight and not self.quantized:
            raise ValueError("entropy_weight needs quantized: an exact carry has no symbols")
        return self

    @property
    def looks_inside(self) -> bool:
        """Whether it is about an Xpi block's parts, which no other network has."""
        return self.front_to_back or self.manipulation is not None or self.quantized

    def objective(
        self, network: ProgressiveNetwork, teacher: Prediction | None = None, track: Track = silent
    ) -> Objective:
        """The loss for a network.

        Args:
            network: What is to be trained.
            teacher: Judges the exits in place of the recipe's own way.
            track: Shows progress while reference networks are fitted.

        Raises:
            TrainingError: It is about Xpi blocks, and the network has none.
        """
        prediction = teacher or self.prediction()
        if not self.looks_inside:
            return Joint(prediction)
        if not isinstance(network, XpiNetwork):
            fitting = ", ".join(name for name, other in RECIPES.items() if not other.looks_inside)
            raise TrainingError(
                "this training has blocks take turns, moves importance or quantises carries, which "
                f"only networks of Xpi blocks can learn from; for others take one of {fitting}"
            )
        quantization = CarryQuantization(network.num_blocks) if self.quantized else None
        return Staged(
            network,
            prediction,
            manipulation=self.manipulation,
            together=not self.front_to_back,
            quantization=quantization,
            entropy_weight=self.entropy_weight,
            track=track,
        )

    def joint(self) -> "Recipe":
        """What goes on with a trained network: all blocks together, quantised carries as before.

        Importance stays where it is by then.
        """
        return self.model_copy(update={"front_to_back": False, "manipulation": None})

    def prediction(self) -> Prediction:
        """What judges the exits where there is no teacher of their own."""
        return Distilled() if self.distilled else CrossEntropy()

    def turns(self, network: ProgressiveNetwork, epochs: int, trained: bool) -> tuple[float, ...]:
        """When each turn ends, in epochs; ``trained`` networks need no joint turn first."""
        if not self.front_to_back:
            return (float(epochs),)
        return turns(network.num_blocks, epochs, 0.0 if trained else JOINT_SHARE)


RECIPES = {
    "plain_joint": Recipe(),
    "distilled": Recipe(distilled=True),
    "front_to_back": Recipe(front_to_back=True),
    "xai_skewness": Recipe(front_to_back=True, manipulation=Manipulation(disorder_weight=0)),
    "xai": Recipe(front_to_back=True, manipulation=Manipulation()),
    "xai_unmapped": Recipe(front_to_back=True, manipulation=Manipulation(map_channels=False)),
    "xai_saliency": Recipe(front_to_back=True, manipulation=Manipulation(attribution="saliency")),
    "xai_joint": Recipe(manipulation=Manipulation(weight=0.3, reference_follows=True)),
    "front_to_back_quantized": Recipe(front_to_back=True, quantized=True),
    "xai_quantized": Recipe(front_to_back=True, manipulation=Manipulation(), quantized=True),
    "xai_distilled_quantized": Recipe(
        distilled=True,
        manipulation=Manipulation(weight=0.3, reference_follows=True),
        quantized=True,
    ),
    "distilled_quantized": Recipe(distilled=True, quantized=True),
    "distilled_entropy": Recipe(distilled=True, quantized=True, entropy_weight=0.05),
}


def recipe(name: str, reference: str | None = None) -> Recipe:
    """The recipe of that name.

    Args:
        name: One of ``RECIPES``.
        reference: Name of the reference network, for a recipe that moves importance; None is the
            recipe's own.

    Raises:
        TrainingError: There is none of that name, or it has no use for a reference network.
    """
    if name not in RECIPES:
        raise TrainingError(f"unknown training {name!r}; expected one of {', '.join(RECIPES)}")
    found = RECIPES[name]
    if reference is None:
        return found
    if found.manipulation is None:
        moving = ", ".join(name for name, other in RECIPES.items() if other.manipulation)
        raise TrainingError(
            f"training {name!r} moves no importance and has no use for the reference network "
            f"{reference!r}; leave it out, or choose one of {moving}"
        )
    manipulation = found.manipulation.model_copy(update={"reference": reference})
    return found.model_copy(update={"manipulation": manipulation})
