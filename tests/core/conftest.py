"""How the properties of the core are tried: the machine may be busy, so no example has a deadline."""

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
