"""What a result was made with."""

import datetime
import os
import platform
from importlib.metadata import version

import jax


def versions() -> dict[str, str | int | None]:
    """Versions of the libraries, the device, the number of processor cores, and the time (UTC)."""
    device = jax.devices()[0]
    return {
        **{name: version(name) for name in ("anyprop", "jax", "equinox", "optax", "numpy")},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": f"{device.platform}: {device.device_kind}",
        "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
