"""Brings a star of hosts up and down with Mininet: LinuxBridge, TCLink with a bandwidth and nothing else.

Prints one JSON object: seconds to bring up and to tear down, CPU seconds of the whole machine for each, and whether the last
host reaches the first.
"""

import json
import sys
import time

from mininet.link import TCLink
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge
from mininet.topo import SingleSwitchTopo


def busy_s():
    """CPU seconds that the machine has spent on anything but waiting."""
    with open("/proc/stat", encoding="ascii") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / 100.0


def main():
    hosts = int(sys.argv[1])
    mbit = float(sys.argv[2])
    setLogLevel("error")

    def link(*args, **kwargs):
        return TCLink(*args, bw=mbit, **kwargs)

    times = [(time.monotonic(), busy_s())]
    net = Mininet(topo=SingleSwitchTopo(k=hosts), switch=LinuxBridge, controller=None, link=link)
    net.start()
    times.append((time.monotonic(), busy_s()))
    first, last = net.get("h1", f"h{hosts}")
    # A bridge takes a moment to forward on a new port.
    lost = net.ping([first, last], timeout="5")
    times.append((time.monotonic(), busy_s()))
    net.stop()
    times.append((time.monotonic(), busy_s()))
    (t0, c0), (t1, c1), (t2, c2), (t3, c3) = times
    print(json.dumps({"up_s": t1 - t0, "up_cpu_s": c1 - c0, "down_s": t3 - t2, "down_cpu_s": c3 - c2, "lost_percent": lost}))


main()
