"""Whether the library that an adapter is for is there, in a version that the adapter was tested with."""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet


def check_host(package: str, *, tested: str, extra: str | None = None) -> None:
    """Call before importing the host.

    Args:
        package: name of the distribution, as `pip` knows it.
        tested: the versions that the tests were run with, as `">=1.0,<1.1"`.
        extra: the extra of multiresnet that installs it; `None`: it belongs to the base install.

    Raises:
        ImportError: the package is not installed.

    Warns:
        UserWarning: its version lies outside the tested range.

    Examples:
        >>> check_host("torch", tested=">=2.4")
        >>> check_host("no-such-host", tested=">=1", extra="medical")
        Traceback (most recent call last):
        ...
        ImportError: no-such-host is not installed; pip install 'multiresnet[medical]'
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        wanted = f"multiresnet[{extra}]" if extra else package
        raise ImportError(f"{package} is not installed; pip install '{wanted}'", name=package) from None
    if not SpecifierSet(tested).contains(installed, prereleases=True):
        warnings.warn(
            f"{package} {installed} lies outside the versions that multiresnet was tested with ({tested}); "
            f"if something fails, try pip install '{package}{tested}'",
            stacklevel=3,
        )
