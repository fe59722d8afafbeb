"""What importing this package costs."""

import subprocess
import sys

HEAVY = {"pydantic", "huggingface_hub", "modelscope_hub", "modelscope", "requests", "httpx2", "torch", "http.server", "filelock"}


def test_importing_every_module_and_making_the_hubs_loads_no_client():
    code = (
        "import sys, twinkle_hub.digest, twinkle_hub.hub, twinkle_hub.hubs, twinkle_hub.huggingface, twinkle_hub.local,"
        "twinkle_hub.modelscope, twinkle_hub.repository, twinkle_hub.settings;"
        "twinkle_hub.hubs.Hubs.standard();"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "twinkle_hub.hubs" in loaded
    assert HEAVY.isdisjoint(loaded)
