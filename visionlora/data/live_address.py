"""Addresses of live streams: which there are, how they are opened, and what may be shown of them."""

import re
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from visionlora.errors import InputError, on_one_line, some

_NETWORK = re.compile(r"(rtsps?|https?)://\S+")
_OTHER = re.compile(r"(\w+)://")
_DEVICE = re.compile(r"/dev/video\d+")

_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,httpproxy"
"""None of them reads a file: what an address answers must not name one."""
_FORMATS = "rtsp,sdp,rtp,mpegts,mpjpeg,mjpeg,flv,matroska,mov,h264,hevc,mpegvideo,m4v,ogg,ivf"
"""FFmpeg's names of what is read from the network. Playlists, which name other addresses, are not."""
_LOOK = "1000000"
"""Microseconds of the stream that FFmpeg looks at before the first frame is handed out; by itself it takes 5 s."""


def is_live(given: str) -> bool:
    """Whether it is the address of a stream or of a camera of this machine, not a path.

    Raises:
        InputError: it is an address of a kind that is not read.
    """
    if _NETWORK.fullmatch(given) or _DEVICE.fullmatch(given):
        return True
    if other := _OTHER.match(given):
        raise InputError(f"{given}: {other[1]}:// is not read; give rtsp://, http://, /dev/video0 or a file")
    return False


def shown_address(address: str) -> str:
    """The address without user, password and query, for messages, results and the names of files."""
    return on_one_line(address)


def file_name(address: str) -> str:
    """A name for a folder or file of a stream: letters, digits, dots and dashes of what may be shown."""
    plain = re.sub(r"^\w+://(\*\*\*@)?", "", shown_address(address))
    return re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.") or "stream"


def open_live(av: ModuleType, address: str, timeout: float) -> Any:
    """A container of PyAV's.

    Args:
        av: PyAV.
        address: that ``is_live``.
        timeout: seconds that opening may take, and each packet.

    Raises:
        InputError: nobody answers, or not with a video of a known format. The error has no cause: FFmpeg's would
            hold the address with its password.
    """
    name, why = shown_address(address), ""
    if _DEVICE.fullmatch(address):
        _refuse_device(address)
        arguments: dict[str, Any] = {"format": "v4l2"}
    else:
        options = {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _FORMATS, "analyzeduration": _LOOK}
        if address.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # by UDP a lost packet smears the picture until the next key frame
        arguments = {"options": options}
    try:
        return av.open(address, timeout=(timeout, timeout), **arguments)
    except av.error.ExitError:
        why = f"no answer within {timeout:g} s; is the address right, and the camera on?"
    except av.error.InvalidDataError:
        why = "what it sends is no video of a known format"
    except (av.error.FFmpegError, OSError, ValueError) as error:
        strerror = getattr(error, "strerror", None)
        why = f"can't be opened ({on_one_line(strerror or type(error).__name__)})"
    raise InputError(f"{name}: {why}")


def _refuse_device(address: str) -> None:
    if not sys.platform.startswith("linux"):
        raise InputError(f"{address}: cameras of this machine are read on Linux alone; give a network address")
    path = Path(address)
    if not path.exists():
        there = sorted(str(path) for path in Path("/dev").glob("video*"))
        raise InputError(f"{address}: there is no such camera; there are {some(there) or 'none'}")
    if not stat.S_ISCHR(path.stat().st_mode):
        raise InputError(f"{address}: is no camera")
