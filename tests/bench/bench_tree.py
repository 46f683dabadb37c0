"""The files of an Orin Nano (L4T R36.4, kernel 5.15) that a measurement reads, laid out as its kernel lays them out."""

from __future__ import annotations

from pathlib import Path

ORIN_NANO = """
etc/nv_tegra_release = # R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64
proc/device-tree/model = NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
proc/cpuinfo = processor : 0
proc/loadavg = 0.31 0.28 0.20 1/512 4242
proc/meminfo = MemTotal:        7802780 kB
sys/class/hwmon/hwmon0/name = soctherm_oc
sys/class/hwmon/hwmon0/oc1_event_cnt = 3
sys/class/hwmon/hwmon0/oc2_event_cnt = 0
sys/class/hwmon/hwmon0/oc3_event_cnt = 1
sys/class/hwmon/hwmon1/name = ina3221
sys/class/hwmon/hwmon1/in1_label = VDD_IN
sys/class/hwmon/hwmon1/in1_input = 5080
sys/class/hwmon/hwmon1/curr1_input = 1968
sys/class/hwmon/hwmon1/in2_label = VDD_CPU_GPU_CV
sys/class/hwmon/hwmon1/in2_input = 5072
sys/class/hwmon/hwmon1/curr2_input = 712
sys/class/hwmon/hwmon1/in3_label = VDD_SOC
sys/class/hwmon/hwmon1/in3_input = 5072
sys/class/hwmon/hwmon1/curr3_input = 296
sys/class/hwmon/hwmon1/in4_input = 8
sys/class/hwmon/hwmon1/in7_label = sum of shunt voltages
sys/class/hwmon/hwmon1/in7_input = 15
sys/class/hwmon/hwmon1/curr4_input = 2976
sys/class/hwmon/hwmon2/name = pwmfan
sys/class/thermal/thermal_zone0/type = cpu-thermal
sys/class/thermal/thermal_zone0/temp = 52781
sys/class/thermal/thermal_zone1/type = gpu-thermal
sys/class/thermal/thermal_zone1/temp = 50156
sys/class/thermal/thermal_zone2/type = cv0-thermal
sys/class/thermal/thermal_zone2/temp = EAGAIN
sys/class/thermal/thermal_zone5/type = soc0-thermal
sys/class/thermal/thermal_zone5/temp = 49875
sys/class/thermal/thermal_zone8/type = tj-thermal
sys/class/thermal/thermal_zone8/temp = 52781
sys/class/thermal/cooling_device0/type = pwm-fan
sys/class/thermal/cooling_device0/cur_state = 1
sys/class/thermal/cooling_device1/type = gpu-throttle-alert
sys/class/thermal/cooling_device1/cur_state = 0
sys/class/thermal/cooling_device2/type = hot-surface-alert
sys/class/thermal/cooling_device2/cur_state = 0
sys/class/devfreq/17000000.gpu/cur_freq = 1020000000
sys/devices/system/cpu/cpu0/cpufreq/scaling_governor = schedutil
sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq = 1728000
sys/devices/system/cpu/cpu4/cpufreq/scaling_governor = schedutil
sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq = 729600
"""


def write_tree(root: Path, listing: str = ORIN_NANO) -> Path:
    """The listing as files. `EAGAIN` stands for a file whose reading fails, as that of a zone switched off does."""
    for line in listing.strip().splitlines():
        name, _, value = line.partition(" = ")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value == "EAGAIN":
            path.mkdir()  # reading a folder raises an OSError, too
        else:
            path.write_text(value + "\n")
    return root
