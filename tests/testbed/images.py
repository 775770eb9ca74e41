"""Container images made here, without a registry: one layer, written with tarfile."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PAUSE = "docker.io/library/pause:local"
HOST_ROOT = "docker.io/library/hostroot:local"
OPERATOR = "docker.io/library/airflow-tuner:local"

ENTRYPOINT = b'#!/bin/sh\nexec "$@"\n'
_LINKS = ("bin", "sbin", "lib", "lib64", "lib32")
_FOLDERS = ("usr", "etc", "tmp", "proc", "dev", "sys", "root", "opt", "run", "var", "var/tmp", "var/log")
# What programs of the machine need to find their libraries and their user; nothing here is secret.
_ETC = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime")


def pause_image(target: Path, pause: Path) -> Path:
    """Write the archive of the pod sandbox image, whose only file is the static program `pause`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, "pause", pause.read_bytes(), mode=0o755)
    return _write_archive(target, PAUSE, layer.getvalue(), entrypoint=["/pause"])


def host_root_image(target: Path, reference: str = HOST_ROOT, entrypoint: Sequence[str] = ("/entrypoint",)) -> Path:
    """Write the archive of an image of empty folders, into which a pod mounts the machine's own /usr.

    Unless told otherwise, its entrypoint runs the arguments, as the official Airflow image's does. Folders that the
    machine keeps inside /usr (/bin, /lib) are links here too; the pod has to mount the others (`host_folders`).
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in _FOLDERS:
            _add_folder(tar, name, mode=0o1777 if name.endswith("tmp") else 0o755)
        for name in _LINKS:
            folder = Path("/") / name
            if folder.is_symlink():
                _add_link(tar, name, str(folder.readlink()))
            elif folder.is_dir():
                _add_folder(tar, name)
        for name in _ETC:
            entry = Path("/etc") / name
            if entry.exists():
                tar.add(entry, arcname=f"etc/{name}")
        _add(tar, "entrypoint", ENTRYPOINT, mode=0o755)
    return _write_archive(target, reference, layer.getvalue(), entrypoint=entrypoint)


def host_folders() -> tuple[str, ...]:
    """Return the folders of the machine that hold its programs: /usr, and those that are no links into it."""
    return ("/usr", *(f"/{name}" for name in _LINKS if _is_real_folder(Path("/") / name)))


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _write_archive(target: Path, reference: str, layer: bytes, *, entrypoint: Sequence[str]) -> Path:
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest: list[Mapping[str, object]] = [{"Config": config_name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    with tarfile.open(target, mode="w") as tar:
        _add(tar, config_name, config)
        _add(tar, "layer.tar", layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return target


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def _add_folder(tar: tarfile.TarFile, name: str, *, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = mode
    tar.addfile(entry)


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.linkname = target
    tar.addfile(entry)
