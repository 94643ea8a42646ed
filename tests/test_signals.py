import signal
import subprocess
import sys
import time

from conftest import environment

# The main thread stays in one native call, as it does while TensorFlow compiles.
PROGRAM = """
import time
from trainer.signals import StopWish
with StopWish() as wish:
    print("ready", flush=True)
    time.sleep(60)
"""


def test_signals_at_once_are_one_wish_and_a_later_one_stops_at_once():
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], text=True, env=environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75 and time.monotonic() - began < 5
    assert "SIGTERM: saving" in err or "SIGINT: saving" in err
    assert err.count("a second signal") == 1
