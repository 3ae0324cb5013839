"""See which pages of an encrypted KVM guest are private and dirty, and plan its migration."""

__all__ = ["package_version"]


def package_version() -> str:
    """Of the installed package; ``unknown`` when run from a tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow

    try:
        return version("kvmenc")
    except PackageNotFoundError:
        return "unknown"
