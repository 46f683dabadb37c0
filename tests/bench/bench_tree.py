"""Files of three Jetsons that a measurement reads, with values that owners of such boards have published.

No complete dump of one board was found in public, so each tree is put together:

- **Orin Nano Super** (L4T 36.4.4, MAXN_SUPER). Rails, over-current counters, clocks and governor: a published study of
  one board's throttling (October 2026: VDD_IN at 5016-5024 mV and 1.5-2.4 A, the other two rails at 0.4-0.5 A, 27 390
  `oc3` events in an hour, cores at 1728 MHz, GPU at 1020 MHz). Where the files are (`i2c-1/1-0040/hwmon/hwmon1`,
  `soctherm-oc-event/hwmon/hwmon3`) and the labels: a published telemetry contract of another (L4T 36.5). Temperatures
  and the cv zones' EAGAIN: a published audio test's log of a third. Power modes: two boards' `/etc/nvpmodel.conf`.
- **AGX Orin**. The first INA3221 (18.8 V rails, channel 3 disabled at that moment, shunt voltages on 4 and 5) and its
  sum: values read from a board in a published exporter; that VIN_SYS_5V0 and VDDQ_VDD2_1V8AO are near 4.97 V: another
  one's. The second INA3221 with its unconnected channels, whose reading fails: github.com/alumet-dev/alumet/issues/212
  and `Skipped NC` in github.com/rbonghi/jetson_stats/issues/381. Zone numbers and tboard, tdiode: jetson_stats issue
  608. Rail voltage and power against tegrastats (19864 mV x 180 mA = 3.58 W) agree in a published dashboard.
- **AGX Thor** (L4T 38.4). INA3221 values, thermal zones, EAGAIN of the GPU's zone at rest, cooling devices with their
  numbering, devfreq names: github.com/swsususu/ThorFAN. The INA238 with its microwatts: its kernel documentation and
  github.com/rbonghi/jetson_stats/pull/900; 23 W at light load: a published inference study.

What is not from a board: the second and third rails' millivolts of the Orin Nano (the kernel gives them with the same
supply), the currents of AGX Orin's 5 V rails (from its tegrastats), the INA238's millivolts and milliamperes and the
`gpu-nvd-0` clock of the Thor (filled in to fit), load average, memory size.
"""

from __future__ import annotations

import os
from pathlib import Path

EAGAIN = "EAGAIN"  # a file that opens and then has nothing to read yet
ERROR = "ERROR"  # a file whose reading fails

ORIN_NANO = """
etc/nv_tegra_release = # R36 (release), REVISION: 4.4, GCID: 41062509, BOARD: generic, EABI: aarch64
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=15W >
etc/nvpmodel.conf + < POWER_MODEL ID=1 NAME=25W >
etc/nvpmodel.conf + < POWER_MODEL ID=2 NAME=MAXN_SUPER >
etc/nvpmodel.conf + < POWER_MODEL ID=3 NAME=7W >
var/lib/nvpmodel/status = pmode:0002
proc/device-tree/model = NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
proc/cpuinfo = processor : 0
proc/loadavg = 0.31 0.28 0.20 1/512 4242
proc/meminfo = MemTotal:        7802780 kB
sys/class/hwmon/hwmon0 -> sys/devices/platform/pwm-fan/hwmon/hwmon0
sys/devices/platform/pwm-fan/hwmon/hwmon0/name = pwmfan
sys/class/hwmon/hwmon1 -> sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/name = ina3221
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in1_label = VDD_IN
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in1_input = 5016
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr1_input = 1616
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr1_crit = 4984
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr1_crit_alarm = 0
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in2_label = VDD_CPU_GPU_CV
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in2_input = 5016
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr2_input = 448
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in3_label = VDD_SOC
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in3_input = 5016
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr3_input = 488
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in4_input = 8080
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr4_input = 2552
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr4_crit_alarm = 0
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in7_label = sum of shunt voltages
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in7_input = 12760
sys/class/hwmon/hwmon3 -> sys/devices/platform/soctherm-oc-event/hwmon/hwmon3
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/name = soctherm_oc
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc1_event_cnt = 0
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc1_throt_en = 1
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc2_event_cnt = 0
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc2_throt_en = 1
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc3_event_cnt = 27390
sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc3_throt_en = 1
sys/class/thermal/thermal_zone0/type = cpu-thermal
sys/class/thermal/thermal_zone0/temp = 49687
sys/class/thermal/thermal_zone1/type = gpu-thermal
sys/class/thermal/thermal_zone1/temp = 50531
sys/class/thermal/thermal_zone2/type = cv0-thermal
sys/class/thermal/thermal_zone2/temp = EAGAIN
sys/class/thermal/thermal_zone3/type = cv1-thermal
sys/class/thermal/thermal_zone3/temp = EAGAIN
sys/class/thermal/thermal_zone4/type = cv2-thermal
sys/class/thermal/thermal_zone4/temp = EAGAIN
sys/class/thermal/thermal_zone5/type = soc0-thermal
sys/class/thermal/thermal_zone5/temp = 50000
sys/class/thermal/thermal_zone6/type = soc1-thermal
sys/class/thermal/thermal_zone6/temp = 50781
sys/class/thermal/thermal_zone7/type = soc2-thermal
sys/class/thermal/thermal_zone7/temp = 49062
sys/class/thermal/thermal_zone8/type = tj-thermal
sys/class/thermal/thermal_zone8/temp = 50781
sys/class/thermal/cooling_device0/type = pwm-fan
sys/class/thermal/cooling_device0/cur_state = 1
sys/class/thermal/cooling_device1/type = cpu-throttle-alert
sys/class/thermal/cooling_device1/cur_state = 0
sys/class/thermal/cooling_device2/type = gpu-throttle-alert
sys/class/thermal/cooling_device2/cur_state = 0
sys/class/thermal/cooling_device3/type = hot-surface-alert
sys/class/thermal/cooling_device3/cur_state = 0
sys/class/thermal/cooling_device4/type = devfreq-17000000.gpu
sys/class/thermal/cooling_device4/cur_state = 2
sys/class/devfreq/17000000.gpu -> sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/cur_freq = 1020000000
sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/governor = nvhost_podgov
sys/devices/system/cpu/cpu0/cpufreq/scaling_governor = schedutil
sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq = 1728000
sys/devices/system/cpu/cpu4/cpufreq/scaling_governor = schedutil
sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq = 1728000
"""

AGX_ORIN = """
etc/nv_tegra_release = # R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64
var/lib/nvpmodel/status = pmode:0000 fmode:quiet
sys/class/hwmon/hwmon1 -> sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/name = ina3221
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in1_label = VDD_GPU_SOC
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in1_input = 18792
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr1_input = 140
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in2_label = VDD_CPU_CV
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in2_input = 18784
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr2_input = 20
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in3_label = VIN_SYS_5V0
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in3_input = 4968
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/curr3_input = 980
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in4_input = 280
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in5_input = 40
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in7_label = sum of shunt voltages
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1/in7_input = 360
sys/class/hwmon/hwmon2 -> sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/name = ina3221
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in1_label = NC
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in1_input = ERROR
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/curr1_input = ERROR
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in2_label = VDDQ_VDD2_1V8AO
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in2_input = 4968
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/curr2_input = 80
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in3_label = NC
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in3_input = ERROR
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/curr3_input = ERROR
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in7_label = sum of shunt voltages
sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0041/hwmon/hwmon2/in7_input = 160
sys/class/thermal/thermal_zone0/type = cpu-thermal
sys/class/thermal/thermal_zone0/temp = 52968
sys/class/thermal/thermal_zone1/type = gpu-thermal
sys/class/thermal/thermal_zone1/temp = -256000
sys/class/thermal/thermal_zone2/type = cv0-thermal
sys/class/thermal/thermal_zone2/temp = EAGAIN
sys/class/thermal/thermal_zone9/type = tboard-thermal
sys/class/thermal/thermal_zone9/temp = 42000
sys/class/thermal/thermal_zone10/type = tdiode-thermal
sys/class/thermal/thermal_zone10/temp = 44250
sys/class/devfreq/17000000.gpu/cur_freq = 1300500000
"""

THOR = """
etc/nv_tegra_release = # R38 (release), REVISION: 4.0, GCID: 43443517, BOARD: generic, EABI: aarch64
etc/nvpmodel.conf = < POWER_MODEL ID=0 NAME=MAXN >
etc/nvpmodel.conf + < POWER_MODEL ID=1 NAME=120W >
var/lib/nvpmodel/status = pmode:0001
sys/class/hwmon/hwmon3/name = ina238
sys/class/hwmon/hwmon3/label = VIN
sys/class/hwmon/hwmon3/in0_input = 4
sys/class/hwmon/hwmon3/in1_input = 19700
sys/class/hwmon/hwmon3/curr1_input = 1170
sys/class/hwmon/hwmon3/power1_input = 23000000
sys/class/hwmon/hwmon4/name = ina3221
sys/class/hwmon/hwmon4/in1_label = VDD_GPU
sys/class/hwmon/hwmon4/in1_input = 12040
sys/class/hwmon/hwmon4/curr1_input = 640
sys/class/hwmon/hwmon4/in2_label = VDD_CPU_SOC_MSS
sys/class/hwmon/hwmon4/in2_input = 12040
sys/class/hwmon/hwmon4/curr2_input = 960
sys/class/hwmon/hwmon4/in3_label = VIN_SYS_5V0
sys/class/hwmon/hwmon4/in3_input = 5088
sys/class/hwmon/hwmon4/curr3_input = 1740
sys/class/hwmon/hwmon4/in4_input = 1240
sys/class/hwmon/hwmon4/curr4_input = 1600
sys/class/hwmon/hwmon4/in7_label = sum of shunt voltages
sys/class/hwmon/hwmon4/in7_input = 3200
sys/class/hwmon/hwmon5/name = soctherm_oc
sys/class/hwmon/hwmon5/oc1_event_cnt = 0
sys/class/hwmon/hwmon5/oc2_event_cnt = 0
sys/class/hwmon/hwmon5/oc3_event_cnt = 179
sys/class/hwmon/hwmon6/name = tmp451
sys/class/hwmon/hwmon6/temp1_input = 48000
sys/class/thermal/thermal_zone0/type = cpu-thermal
sys/class/thermal/thermal_zone0/temp = 53700
sys/class/thermal/thermal_zone1/type = gpu-thermal
sys/class/thermal/thermal_zone1/temp = EAGAIN
sys/class/thermal/thermal_zone2/type = soc012-thermal
sys/class/thermal/thermal_zone2/temp = 55100
sys/class/thermal/thermal_zone3/type = soc345-thermal
sys/class/thermal/thermal_zone3/temp = 53700
sys/class/thermal/thermal_zone4/type = tj-thermal
sys/class/thermal/thermal_zone4/temp = 55100
sys/class/thermal/cooling_device0/type = cpufreq-cpu0
sys/class/thermal/cooling_device0/cur_state = 0
sys/class/thermal/cooling_device7/type = pwm-fan
sys/class/thermal/cooling_device7/cur_state = 2
sys/class/thermal/cooling_device8/type = cpu-throttle-alert
sys/class/thermal/cooling_device8/cur_state = 0
sys/class/thermal/cooling_device9/type = gpu-throttle-alert
sys/class/thermal/cooling_device9/cur_state = 1
sys/class/thermal/cooling_device10/type = soc012-throttle-alert
sys/class/thermal/cooling_device10/cur_state = 0
sys/class/thermal/cooling_device12/type = devfreq-gpu-gpc-0
sys/class/thermal/cooling_device12/cur_state = 18
sys/class/devfreq/gpu-gpc-0/cur_freq = 1575000000
sys/class/devfreq/gpu-nvd-0/cur_freq = 1692000000
sys/class/devfreq/bwmgr/cur_freq = 4266000000
sys/devices/system/cpu/cpu0/cpufreq/scaling_governor = schedutil
sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq = 2601000
"""

INA3221 = "sys/devices/platform/bus@0/c240000.i2c/i2c-1/1-0040/hwmon/hwmon1"
_held: list[int] = []


def write_tree(root: Path, listing: str = ORIN_NANO) -> Path:
    """The listing as files: `=` makes one, `+` adds a line, `->` makes a link.

    EAGAIN stands for a pipe that stays open and empty: reading it without waiting fails with the very error. ERROR
    stands for a folder: it opens, and reading it fails.
    """
    for line in listing.strip().splitlines():
        name, how, value = line.split(" ", 2)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if how == "->":
            path.symlink_to(os.path.relpath(root / value, path.parent))
        elif value == EAGAIN:
            os.mkfifo(path)
            _held.append(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        elif value == ERROR:
            path.mkdir()
        else:
            with path.open("a") as file:
                file.write(value + "\n")
    return root
