from .fixtures import earth, ee_server, standard_archive

__all__ = ["earth", "ee_server", "standard_archive"]
