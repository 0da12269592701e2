"""Sky Island: any Go function of any Git repository, answered from a fresh jail."""

from importlib.metadata import version

__version__ = version("skyisland")
