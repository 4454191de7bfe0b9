"""Lightning modules: what is trained on what, around any `torch.nn.Module`."""

from .surrogate import SurrogateTask as SurrogateTask
from .surrogate import relative_squared_error as relative_squared_error

__all__ = ["SurrogateTask", "relative_squared_error"]
