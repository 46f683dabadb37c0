"""EDA files as wards, labs and the internet have them: situation -> verdict and reason.

`SITUATIONS` is the table to read. Each row writes a file of the same 30 s of skin conductance (5 µS and responses, at
50 Hz) in one way, and says what comes of it: the same signal, or a refusal that names the setting.
"""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from reports import without_report
from warm import jmt_edge

from jmt_edge.capture import open_source
from jmt_edge.capture.files import EdaFile
from jmt_edge.clips.eda import EdaCutter
from jmt_edge.clips.plan import HOP, plan_clips
from jmt_edge.clips.presence import cut
from jmt_edge.errors import SourceError
from jmt_edge.media.chunk import Chunk
from jmt_edge.media.eda_files import Asked, EdaRecording, read_eda_file
from jmt_edge.tasks import get_task

N, RATE = 1500, 50.0
T = np.arange(N) / RATE
UNIX = 1_700_000_000.0


def skin(t: np.ndarray) -> np.ndarray:
    """5 µS, a slow wave and a little noise, to four decimals."""
    return np.round(5 + 0.5 * np.sin(t / 3) + 0.002 * np.sin(977 * t), 4)


S = skin(T)


def table(times: list[str] | np.ndarray, values: list[str] | np.ndarray, header: str = "t,uS", sep: str = ",") -> str:
    return "\n".join([*([header] if header else []), *(f"{a}{sep}{b}" for a, b in zip(times, values))]) + "\n"


def stamps(times: np.ndarray, digits: int = 3, scale: float = 1.0) -> list[str]:
    return [f"{t * scale:.{digits}f}" for t in times]


def numbers(values: np.ndarray = S, digits: int = 4) -> list[str]:
    return [f"{v:.{digits}f}" for v in values]


def changed(at: int, value: float) -> np.ndarray:
    times = T.copy()
    times[at] = value
    return times


def opensignals(columns: np.ndarray, devices: list[dict[str, object]]) -> str:
    header = {f"AA:0{i}": device for i, device in enumerate(devices)}
    rows = "\n".join("\t".join(f"{x:g}" for x in row) + "\t" for row in columns)
    return f"# OpenSignals Text File Format\n# {json.dumps(header)}\n# EndOfHeader\n{rows}\n"


def device(sensors: list[str], resolution: list[int], **more: object) -> dict[str, object]:
    labels = [f"A{i + 1}" for i in range(len(sensors))]
    return {"sensor": sensors, "label": labels, "column": ["nSeq", *labels], "resolution": resolution,
            "sampling rate": 50, "device": "bitalino_rev", **more}  # fmt: skip


def clock(t: float) -> str:
    s = t % 86400
    return f"{int(s // 3600):02d}:{int(s // 60 % 60):02d}:{s % 60:06.3f}"


SEQ = np.arange(N) % 16
ADC = np.round(S / 25 * 1024)
GROUP = np.floor(T / 0.2 + 1e-9) * 0.2  # ten samples a read


@dataclass
class Row:
    """text: the file. reason: in the notes of a file that is used, or in the message that refuses it. report: a public
    one of the situation or of its kind."""

    text: str | bytes
    verdict: str = "used"
    reason: str = ""
    query: str = ""
    name: str = "eda.csv"
    lost: int = 0
    tolerance: float = 1e-6
    missing: tuple[int, ...] = field(default=())  # samples of the truth that are not there
    report: str = ""


# fmt: off
SITUATIONS: dict[str, Row] = {
    # plain
    "CSV": Row(table(stamps(T), numbers())),
    "CRLF": Row(table(stamps(T), numbers()).replace("\n", "\r\n"), report="binjr/binjr#87"),
    "gap of a second": Row(table(stamps(np.delete(T, np.s_[700:750])), numbers(np.delete(S, np.s_[700:750]))), missing=tuple(range(700, 750)), report="OpenBCI/OpenBCI_GUI#198"),
    # stamps in groups
    "bursts of ten, 1 µs apart": Row(table(stamps(GROUP + (np.arange(N) % 10) * 1e-6, 6), numbers()), reason="spread evenly", report="labstreaminglayer/pylsl#103"),
    "bursts of ten, 5 ns apart": Row(table(stamps(GROUP + (np.arange(N) % 10) * 5e-9, 9), numbers()), reason="spread evenly", report="labstreaminglayer/App-WearableSensing#4"),
    "bursts of ten, 1 ms apart": Row(table(stamps(GROUP + (np.arange(N) % 10) * 1e-3), numbers()), reason="spread evenly", report="labstreaminglayer/pylsl#103"),
    "whole seconds": Row(table(stamps(UNIX + np.floor(T), 0), numbers(), "timestamp,uS"), reason="spread evenly", report="actigraph/pygt3x#36"),
    "stamps every 10 s": Row(table(stamps(np.floor(T / 10) * 10, 0), numbers()), "refused", "rate=", report="alexarch21/history-explorer-card#79"),
    # wild stamps and clocks that step
    "one stamp + 200 000 s": Row(table(stamps(changed(300, 2e5)), numbers()), reason="row 302: a wild time stamp", lost=1, missing=(300,), report="xdf-modules/libxdf#8"),
    "ten stamps wild": Row(table(stamps(np.where(np.arange(N) % 150 == 75, T + 9e4, T)), numbers()), reason="wild", lost=10, missing=tuple(range(75, N, 150)), report="sccn/labstreaminglayer#102"),
    "ten stamps before the clock was set": Row(table(stamps(np.where(np.arange(N) % 150 == 75, -1e9, T)), numbers()), reason="wild", lost=10, missing=tuple(range(75, N, 150)), report="jomjol/AI-on-the-edge-device#3790"),
    "last stamp + 200 000 s": Row(table(stamps(changed(N - 1, 2e5)), numbers()), reason="wild", lost=1, missing=(N - 1,), report="sccn/labstreaminglayer#102"),
    "first stamp before the clock was set": Row(table(["0.0", *stamps(UNIX + T[1:], 2)], numbers(), "timestamp,uS"), reason="row 2", lost=1, missing=(0,), report="jomjol/AI-on-the-edge-device#2287"),
    "clock set an hour back": Row(table(stamps(UNIX + T - 3600 * (T >= 10), 2), numbers(), "timestamp,uS"), reason="stepped back by 3599.98 s", report="sccn/xdf#53"),
    "clock set an hour ahead": Row(table(stamps(UNIX + T + 3600 * (T >= 10), 2), numbers(), "timestamp,uS"), reason="stepped ahead by 3600.02 s", report="sccn/labstreaminglayer#131"),
    "board restarts": Row(table(stamps(np.where(T < 14, T, T - 14), 0, 1000), numbers(), "t_ms,uS"), reason="stepped back by 13.98 s", report="sccn/xdf#53"),
    "header of another unit after a restart": Row(table(stamps(T[:700], 0, 1000), numbers(S[:700]), "t_ms,uS") + table(stamps(T[700:], 0, 1000), numbers(1000 / S[700:]), "t_ms,kohm"), "refused", "another unit, kohm; split the file there", report="mendhak/gpslogger#529"),
    "headless, then a header of another unit": Row(table(stamps(T[:700], 0, 1000), numbers(S[:700]), "") + table(stamps(T[700:], 0, 1000), numbers(1000 / S[700:]), "t_ms,kohm"), "refused", "another unit, kohm", query="time=ms", report="mendhak/gpslogger#529"),
    "header again after a restart": Row(table(stamps(T[:700], 0, 1000), numbers(S[:700]), "t_ms,uS") + table(stamps(T[: N - 700], 0, 1000), numbers(S[700:]), "t_ms,uS"), reason="header is repeated 1 times", report="mendhak/gpslogger#529"),
    "ten rows sent twice": Row(table(stamps(np.insert(T, 500, T[490:500])), numbers(np.insert(S, 500, S[490:500]))), reason="does not advance", lost=10, report="ruuvi/com.ruuvi.station#638"),
    # units and names of time
    "unix ms": Row(table(stamps(UNIX + T, 0, 1000), numbers(), "timestamp,EDA"), reason="taken as ms", report="Arize-ai/phoenix#269"),
    "unix ns": Row(table([f"{int(UNIX) * 10**9 + i * 20_000_000}" for i in range(N)], numbers(), "timestamp,EDA"), reason="taken as ns", tolerance=1e-3, report="ait-aecid/logdata-anomaly-miner#1144"),
    "micros()": Row(table(stamps(T, 0, 1e6), numbers(), "t_us,uS"), report="NVlabs/FPSci#318"),
    "micros() starts again at 0": Row(table([f"{int(2**32 - 10_000_000 + t * 1e6) % 2**32}" for t in T], numbers(), "t_us,uS"), report="NVlabs/FPSci#318"),
    "milliseconds without a name": Row(table(stamps(T, 0, 1000), numbers(), "time,gsr"), reason="taken as ms", report="amund7/ScanMyTesla#40"),
    "tab, time and gsr in seconds": Row(table(stamps(T), numbers(), "time\tgsr", "\t"), name="a.txt", report="ClassicMiniDIY/UltraLog#80"),
    "t_ms that holds seconds": Row(table(stamps(T), numbers(), "t_ms,uS"), "refused", "time=s", report="swift-nav/piksi_tools#629"),
    "t_ms that holds seconds, said so": Row(table(stamps(T), numbers(), "t_ms,uS"), query="time=t_ms:s", report="swift-nav/piksi_tools#629"),
    "steps of 1 without a unit": Row(table(stamps(T * 50, 0), numbers(), "time,uS"), "refused", "time=s, time=ms or time=us", report="Lukious/wav-to-csv#2"),
    "ISO times": Row(table([f"2024-03-31T01:59:{t:06.3f}" for t in T], numbers(), "timestamp,uS"), report="Haivision/srt#1644"),
    "ISO times with a zone": Row(table([f"2024-03-31 01:59:{t:06.3f}Z" for t in T], numbers(), "timestamp,uS"), report="Haivision/srt#1644"),
    "time of day over midnight": Row(table([clock(86395 + t) for t in T], numbers(), "time,uS"), report="travisdesell/ngafid2.0#330"),
    "local dates with AM and PM": Row(table([f"3/31/2024 {clock(3595 + t).replace('00:', '12:', 1) if t < 5 else clock(3595 + t)[1:]} PM" for t in T], numbers(), "time,uS"), report="jpillora/csv-to-influxdb#34"),
    "negative times": Row(table(stamps(T - 5), numbers()), report="ModbusScope/ModbusScope#198"),
    # delimiters and encodings
    "semicolons and decimal commas": Row(table(stamps(T), numbers(), "t;uS", ";").replace(".", ","), reason="decimal commas", report="haesleinhuepf/devbio-napari#46"),
    "decimal commas between commas": Row(table(stamps(T), numbers()).replace(".", ","), "refused", "decimal commas", report="dropwizard/metrics#1174"),
    "tabs said by sep=": Row('"sep=\\t"\n' + table(stamps(T), numbers(), "t\tuS", "\t"), report="bachlab/PsPM#109"),
    "spaces": Row(table(stamps(T), numbers(), "t uS", " "), report="pyhrf/pyhrf#76"),
    "pipes": Row(table(stamps(T), numbers(), "t|uS", "|"), query="sep=pipe", report="duckdb/duckdb#14115"),
    "quotes": Row(table([f'"{t}"' for t in stamps(T)], [f'"{v}"' for v in numbers()], '"t","uS"'), report="zemirco/json2csv#195"),
    "quoted decimal commas": Row(table([f'"{t}"' for t in stamps(T)], [f'"{v}"' for v in numbers()], '"t";"uS"').replace(".", ",").replace(";", ","), reason="decimal commas", report="wireservice/csvkit#876"),
    "comments": Row("# subject 7\n# left hand\n" + table(stamps(T), numbers()) + "# end\n", report="vincentlaucsb/csv-parser#67"),
    "another language": Row(table(stamps(T, 0, 1000), numbers(), "Zeit (ms);EDA (µS)", ";").encode("cp1252"), report="activeadmin/activeadmin#4063"),
    "header in a comment": Row("# t, uS\n" + table(stamps(T), numbers(), ""), report="mechatroner/vscode_rainbow_csv#90"),
    "UTF-16": Row(table(stamps(T), numbers()).encode("utf-16"), report="vividvilla/csvtotable#35"),
    "UTF-16 without a mark": Row(table(stamps(T), numbers()).encode("utf-16-le"), report="errepi/ude#5"),
    "cp1252": Row(table(stamps(T), numbers(), "t,EDA [µS]").encode("cp1252"), report="adaltas/node-csv#81"),
    "no header": Row(table(stamps(T, 0, 1000), numbers(), ""), reason="taken as ms", report="physiopy/phys2bids#143"),
    "no header, named": Row(table(stamps(T, 0, 1000), [f"0,{v}" for v in numbers()], ""), query="time=1:ms&column=3&unit=uS", report="physiopy/phys2bids#143"),
    "no header, three columns": Row(table(stamps(T, 0, 1000), [f"0,{v}" for v in numbers()], ""), "refused", "column=3", report="physiopy/phys2bids#143"),
    "NA": Row(table(stamps(T), ["NA" if i == 300 else v for i, v in enumerate(numbers())]), report="bachlab/PsPM#434"),
    "a number that no float32 holds": Row(table(stamps(T), ["1e39" if i == 300 else v for i, v in enumerate(numbers())]), report="NVIDIA/cudf-spark#126"),
    "inf": Row(table(stamps(T), ["inf" if i == 300 else v for i, v in enumerate(numbers())]), report="SignalK/SensESP#907"),
    "one bad row": Row(table(stamps(T), ["oops" if i == 300 else v for i, v in enumerate(numbers())]), reason="'6.000,oops' is not numbers", lost=1, missing=(300,), report="autosportlabs/RaceCapture_App#1463"),
    "every fifth row bad": Row(table(stamps(T), ["oops" if i % 5 == 2 else v for i, v in enumerate(numbers())]), "refused", "row 4: '0.040,oops'", report="autosportlabs/RaceCapture_App#1463"),
    # units
    "kohm in gsr": Row(table(stamps(T), numbers(1000 / S), "time,gsr"), "refused", "unit=", report="seemoo-lab/pyshimmer#20"),
    "kohm in gsr, said so": Row(table(stamps(T), numbers(1000 / S, 6), "time,gsr"), query="unit=kohm", report="seemoo-lab/pyshimmer#20"),
    "ohm, said so": Row(table(stamps(T), numbers(1e6 / S, 6), "time,gsr"), query="unit=ohm", report="seemoo-lab/pyshimmer#13"),
    "kohm by its header": Row(table(stamps(T), numbers(1000 / S, 6), "time,gsr (kOhm)"), reason="converted from kohm", report="RADAR-base/RADAR-Schemas#80"),
    "volts in EDA": Row(table(stamps(T), numbers(S * 0.132, 6), "time,EDA"), "refused", "unit=", report="brainflow-dev/brainflow#784"),
    "volts in EDA, said so": Row(table(stamps(T), numbers(S * 0.132, 8), "time,EDA"), query="unit=V", report="brainflow-dev/brainflow#784"),
    "volts of a biosignalsplux": Row(table(stamps(T), numbers(S * 0.12, 8), "time,EDA"), query="unit=V&gain=0.12", report="BITalinoWorld/revolution-python-api#8"),
    "nS, said so": Row(table(stamps(T), numbers(S * 1000, 1), "time,EDA"), query="unit=nS", tolerance=1e-4, report="DIGGSml/schema-dev#41"),
    "counts below 60": Row(table(stamps(T), numbers(np.round(S * 6), 0), "time,gsr"), "refused", "whole numbers", report="SeeedDocument/Seeed-WiKi#21"),
    "counts": Row(table(stamps(T), numbers(ADC, 0), "time,gsr"), "refused", "unit=", report="PIA-Group/BioSPPy#48"),
    "counts, said so": Row(table(stamps(T), numbers(ADC, 0), "time,gsr"), query="unit=adc&bits=10", tolerance=0.02, report="PIA-Group/BioSPPy#48"),
    "12-bit counts taken for 10": Row(table(stamps(T), numbers(ADC * 8, 0), "time,gsr"), "refused", "bits=11", query="unit=adc", report="seemoo-lab/pyshimmer#43"),
    "S and mS in brackets": Row(table(stamps(T), numbers(S / 1000, 7), "time,EDA (mS)"), reason="converted from mS", report="DIGGSml/schema-dev#41"),
    "MOhm": Row(table(stamps(T), numbers(1 / S, 8), "time,GSR [MOhm]"), reason="converted from Mohm", tolerance=1e-5, report="DIGGSml/schema-dev#41"),
    "arbitrary units": Row(table(stamps(T), numbers(), "time,EDA (a.u.)"), "refused", "'a.u.', which is not a unit", report="CMRR-C2P/MB#244"),
    "a z-score": Row(table(stamps(T), numbers(), "time,EDA [z]"), "refused", "'z', which is not a unit", report="neuropsychology/NeuroKit#953"),
    "per cent below the header": Row("time,EDA\n[s],[%]\n" + table(stamps(T), numbers(), ""), "refused", "'%', which is not a unit", report="JuliaData/CSV.jl#936"),
    "units in brackets below the header": Row("time,EDA\n(ms),(kOhm)\n" + table(stamps(T, 0, 1000), numbers(1000 / S, 6), ""), reason="converted from kohm", report="BurntSushi/xsv#245"),
    "a place in brackets": Row(table(stamps(T), numbers(), "time,EDA (left hand)"), report="hgrecco/pint-pandas#166"),
    "volts between 1 and 25 on a converter's steps": Row(table(stamps(T), numbers(np.round(S * 120) * 5 / 1023), "time,gsr"), "refused", "multiples of 5/1023 V", report="mdsiraj1992/Gassensors#2"),
    "a BITalino's µS on its own steps": Row(table(stamps(T), numbers(ADC * 25 / 1024, 6), "time,eda"), tolerance=0.013, report="PGomes92/opensignalsreader#6"),
    # columns
    "two EDA columns": Row(table(stamps(T), [f"{v + 3:.4f},{v:.4f}" for v in S], "t,EDA_left,EDA_right"), "refused", "2 EDA columns, 'EDA_left' (column 2) and 'EDA_right' (column 3)", report="brainflow-dev/brainflow#784"),
    "two EDA columns, one chosen": Row(table(stamps(T), [f"{v + 3:.4f},{v:.4f}" for v in S], "t,EDA_left,EDA_right"), query="column=3", report="brainflow-dev/brainflow#784"),
    "EDA and GSR": Row(table(stamps(T), [f"{v + 3:.4f},{v:.4f}" for v in S], "t,EDA,GSR"), "refused", "2 EDA columns", report="RADAR-base/RADAR-Schemas#80"),
    "the same name twice": Row(table(stamps(T), [f"{v + 3:.4f},{v:.4f}" for v in S], "t,EDA,EDA"), "refused", "2 EDA columns", report="dfurtado/dataclass-csv#10"),
    "one of two says µS": Row(table(stamps(T), [f"{v + 3:.4f},{v:.4f}" for v in S], "t,EDA,EDA_uS"), report="brainflow-dev/brainflow#784"),
    "a decomposed signal": Row(table(stamps(T), [f"{v + 1:.4f},{v:.4f},{v - 0.1:.4f},0.1" for v in S], "time,EDA_Raw,EDA_Clean,EDA_Tonic,EDA_Phasic"), report="neuropsychology/NeuroKit#554"),
    "phasic alone": Row(table(stamps(T), numbers(), "time,EDA_Phasic"), "refused", "no column", report="neuropsychology/NeuroKit#545"),
    "rows wider than the header": Row("time,eda\n" + "\n".join(f"{i},{t:.3f},{v}" for i, (t, v) in enumerate(zip(T, S))), "refused", "names 2 columns and its rows have 3", report="pandas-dev/pandas#15203"),
    "EDA at a quarter of the rows": Row(table(stamps(np.arange(4 * N) / 200), [f"70,{S[i // 4] if i % 4 == 0 else ''}" for i in range(4 * N)], "t,hr,EDA"), reason="belong to other signals", report="neuropsychology/NeuroKit#864"),
    "lines before the header": Row("Subject: 7\nDate: 2024-01-01\n\n" + table(stamps(T), numbers(), "Time,EDA"), reason="2 lines before the header", report="microsoft/markitdown#2391"),
    # time in other units
    "minutes": Row(table(stamps(T, 9, 1 / 60), numbers(), "Time (min),EDA"), report="physiopy/phys2bids#129"),
    "minutes of a BIOPAC": Row(table(stamps(T, 9, 1 / 60), numbers(), "min\tEDA", "\t"), name="a.txt", report="physiopy/phys2bids#129"),
    "hours": Row(table(stamps(T, 11, 1 / 3600), numbers(), "time [h],EDA"), report="physiopy/phys2bids#129"),
    "minutes without a unit": Row(table(stamps(T, 9, 1 / 60), numbers(), "time,EDA"), "refused", "time=min", report="physiopy/phys2bids#129"),
    "minutes, said so": Row(table(stamps(T, 9, 1 / 60), numbers(), "time,EDA"), query="time=min", report="physiopy/phys2bids#129"),
    "a minimum is no minute": Row(table(stamps(T), [f"0.1,{v}" for v in S], "time,min,EDA"), report="battery-data-alliance/battery-data-format#45"),
    "days since 1900": Row(table(stamps(T, 11, 1 / 86400), numbers(), "time,EDA"), "refused", "time=s, time=min or time=h", report="jlennox/HeartRate#27"),
    "minutes and seconds": Row(table([f"{58 + (t + 100) // 60 - 1:02.0f}:{(t + 100) % 60:06.3f}" for t in T], numbers(), "time,EDA"), report="Kitware/dive#497"),
    "UTF-32": Row(table(stamps(T), numbers()).encode("utf-32"), report="pandas-dev/pandas#24130"),
    "gzipped without its suffix": Row(gzip.compress(table(stamps(T), numbers()).encode()), report="OpenRefine/OpenRefine#547"),
    "what a terminal obeys": Row(table(stamps(T), ["\x1b[2Joops" if i == 300 else v for i, v in enumerate(numbers())]), reason="\ufffd[2Joops' is not numbers", lost=1, missing=(300,), report="pola-rs/polars#26755"),
    "an Excel 97 spreadsheet": Row(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(999), "refused", "save it as CSV", report="williballenthin/python-evtx#93"),
    "Parquet": Row(b"PAR1" + bytes(999), "refused", "Parquet", report="pola-rs/polars#26755"),
    # Empatica
    "Empatica, a comma at each line's end": Row(f"{UNIX:.6f},\n4.000000,\n" + ",\n".join(numbers(skin(np.arange(480) / 4))), report="pandas-dev/pandas#27515"),
    "Empatica": Row(f"{UNIX:.6f}\n4.000000\n" + "\n".join(numbers(skin(np.arange(480) / 4))), report="neuropsychology/NeuroKit#554"),
    "Empatica, decimal commas": Row((f"{UNIX:.6f}\n4.000000\n" + "\n".join(numbers(skin(np.arange(480) / 4)))).replace(".", ","), reason="decimal commas", report="meshtastic/Meshtastic-Android#818"),
    "Empatica ACC": Row("1544027337.0, 1544027337.0, 1544027337.0\n32.0, 32.0, 32.0\n" + "20,-2,63\n" * 99, "refused", "acceleration", name="x.csv", report="SMARTlab-Purdue/ros2-foxy-wearable-biosensors#1"),
    "Empatica TEMP": Row("1544027337.0\n4.0\n" + "32.50\n" * 99, "refused", "TEMP.csv", name="TEMP.csv", report="SMARTlab-Purdue/ros2-foxy-wearable-biosensors#1"),
    "Empatica TEMP, renamed": Row("1544027337.0\n4.0\n" + "32.50\n" * 99, "refused", "temperature", report="SMARTlab-Purdue/ros2-foxy-wearable-biosensors#1"),
    # OpenSignals
    "OpenSignals": Row(opensignals(np.c_[SEQ, ADC], [device(["EDABITREV"], [4, 10])]), tolerance=0.02),
    "OpenSignals, one resolution (mobile app)": Row(opensignals(np.c_[SEQ, ADC], [device(["EDABITREV"], [10])]), tolerance=0.02, report="https://support.pluxbiosignals.com/knowledge-base/opensignals-sensor-file-specifications-txt-format/"),
    "OpenSignals, EDA on the second device": Row(opensignals(np.c_[SEQ, ADC * 0 + 300 + SEQ, (SEQ + 5) % 16, ADC], [device(["ECGBITREV"], [4, 10]), device(["EDABITREV"], [4, 10])]), tolerance=0.02, report="neuropsychology/NeuroKit#592"),
    "OpenSignals, two EDA channels": Row(opensignals(np.c_[SEQ, ADC * 0, ADC], [device(["EDABITREV"] * 2, [4, 10, 10])]), "refused", "column=A2", report="PGomes92/opensignalsreader#5"),
    "OpenSignals, the second channel": Row(opensignals(np.c_[SEQ, ADC * 0, ADC], [device(["EDABITREV"] * 2, [4, 10, 10])]), query="column=A2", tolerance=0.02, report="PGomes92/opensignalsreader#5"),
    "OpenSignals, the open channel": Row(opensignals(np.c_[SEQ, ADC * 0, ADC], [device(["EDABITREV"] * 2, [4, 10, 10])]), "refused", "column=A2", query="column=A1", report="PGomes92/opensignalsreader#5"),
    "OpenSignals, converted": Row(opensignals(np.c_[SEQ, S], [device(["EDABITREV"], [4, 10], convertedValues=1)]), reason="in µS already", report="pluxbiosignals/biosignalsnotebooks#13"),
    "OpenSignals, converted, seconds": Row(opensignals(np.c_[T, S], [device(["EDABITREV"], [4, 10])]), reason="in µS already", report="pluxbiosignals/biosignalsnotebooks#13"),
    "biosignalsplux": Row(opensignals(np.c_[np.arange(N), np.round(S / 25 * 65536)], [device(["EDA"], [16], device="biosignalsplux")]), tolerance=1e-3, report="BITalinoWorld/revolution-python-api#8"),
    "HDF5 that is damaged": Row(b"\x89HDF\r\n\x1a\n" + bytes(500), "refused", "export it again", name="a.h5", report="RTXI/rtxi#106"),
    # other
    "Shimmer Consensys": Row('"sep=\\t"\nS_Timestamp_Unix_CAL\tS_GSR_Range_CAL\tS_GSR_Skin_Conductance_CAL\tS_GSR_Skin_Resistance_CAL\t\nms\tno_units\tuS\tkOhms\t\n' + "".join(f"{(UNIX + t) * 1000:.4f}\t1.0\t{v}\t{1000 / float(v):.4f}\t\n" for t, v in zip(T, numbers())), report="bachlab/PsPM#109"),
    "a damaged ZIP": Row(b"PK\x03\x04" + bytes(500), "refused", "export it again", report="Healthcare-Robotics/spectrovision#6"),
}
# fmt: on
CONTROLS = {"CSV", "OpenSignals"}  # good files: nothing to report


def test_each_situation_cites_a_public_report() -> None:
    assert without_report({name: row.report for name, row in SITUATIONS.items()}) == CONTROLS


def write(tmp_path: Path, row: Row) -> str:
    path = tmp_path / row.name
    path.write_bytes(row.text if isinstance(row.text, bytes) else row.text.encode())
    return f"{path}?{row.query}" if row.query else str(path)


def opened(spec: str) -> tuple[EdaFile, EdaRecording]:
    source = open_source("eda", spec)
    assert isinstance(source, EdaFile)
    source.open(0.0)
    assert source._recording is not None
    return source, source._recording


def windows(source: EdaFile, seconds: float) -> list[str]:
    """The reason of each window of a live run; empty where the window is used."""
    plan = plan_clips(get_task("pain"), HOP)["eda"]
    cutter = EdaCutter(plan)
    found = []
    for t in np.arange(1, int(seconds / HOP) + 1) * HOP:
        cutter.push(source.read(float(t)))
        got = cut(plan, cutter, float(t), float(t))
        found.append("" if got.ok else got.quality.reason or "refused")
    return found


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation(name: str, tmp_path: Path) -> None:
    row = SITUATIONS[name]
    spec = write(tmp_path, row)
    if row.verdict == "refused":
        with pytest.raises(SourceError) as caught:
            opened(spec)
        message = str(caught.value)
        assert row.reason in message and "\n" not in message and row.name in message, message
        return
    source, found = opened(spec)
    assert row.reason in " ".join(found.notes), found.notes
    assert (found.lost, found.unit) == (row.lost, "µS")
    if name.startswith("Empatica"):
        truth = skin(np.arange(480) / 4)
    else:
        truth = np.delete(S, row.missing)
    if name in ("NA", "inf", "a number that no float32 holds"):
        truth[300] = np.nan
    np.testing.assert_allclose(found.values, truth, atol=row.tolerance)
    if not name.startswith("Empatica"):
        # a step of the clock leaves a second; everything else keeps its place
        at = np.delete(T, row.missing)
        late = found.times - (at - at[0])
        assert np.all(np.diff(late) > -1e-6) and late[-1] < 1.0 + 1e-6
        assert (late[-1] > 0.9) == ("stepped" in " ".join(found.notes)), late[-1]
    reasons = windows(source, float(found.times[-1]))
    used = [reason for reason in reasons[12:] if not reason]
    assert len(used) >= (0.75 if row.missing else 0.9) * len(reasons[12:]), reasons
    assert len(reasons) <= 240
    status = source.status()
    assert status.lost == row.lost
    if row.reason:
        assert status.detail["notes"]


@pytest.mark.parametrize("name", ["bursts of ten, 1 µs apart", "bursts of ten, 5 ns apart", "whole seconds"])
def test_groups_of_stamps_give_the_clips_of_the_plain_file(name: str, tmp_path: Path) -> None:
    plan = plan_clips(get_task("pain"), HOP)["eda"]

    def clip(row: Row) -> np.ndarray:
        source, _ = opened(write(tmp_path, row))
        cutter = EdaCutter(plan)
        cutter.push(source.read(20.0))
        return cutter.clip(20.0)[0]

    np.testing.assert_allclose(clip(SITUATIONS[name]), clip(SITUATIONS["CSV"]), atol=1e-3)


@pytest.mark.parametrize("step", [1e-6, 5e-9, 1e-12])
def test_work_and_memory_do_not_depend_on_the_stamps(step: float) -> None:
    """A live board may send anything; the resampler sees the bursts themselves."""
    times = np.floor(np.arange(400) / 10) * 0.2 + (np.arange(400) % 10) * step
    plan = plan_clips(get_task("pain"), HOP)["eda"]
    for n in (2, 400):
        cutter = EdaCutter(plan)
        cutter.push(Chunk(times[:n], skin(times[:n]).astype(np.float32), 50.0))
        tracemalloc.start()
        clip, _ = cutter.clip(max(float(times[n - 1]), 7.0))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.isfinite(clip).all() and peak < 40e6


def test_biovid_in_seconds_is_refused_by_name_and_bounded(tmp_path: Path) -> None:
    """It took 22.8 GB."""
    t = np.arange(2816) / 512
    path = tmp_path / "s_bio.csv"
    rows = "\n".join(f"{a:.6f}\t{b:.4f}\t0\t0\t0\t0" for a, b in zip(t, skin(t)))
    path.write_text("time\tgsr\tecg\temg_trapezius\temg_corrugator\temg_zygomaticus\n" + rows)
    tracemalloc.start()
    for strict in (True, False):
        with pytest.raises(SourceError, match=r"read as us, give .* samples a second.*time=s"):
            read_eda_file(path, Asked(column="gsr"), strict=strict)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert read_eda_file(path, Asked(time="s")).measured_rate == pytest.approx(512, rel=1e-3)


@pytest.mark.parametrize("unit", ["furlong", ""])
def test_settings_that_make_no_sense_are_one_sentence(unit: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(str(SITUATIONS["CSV"].text))
    for query in (f"unit={unit}", "bits=10", "unit=kohm&gain=2", "unit=adc&bits=x", "sep=ab", "decimal=;", "time=nowhere",
                  "column=9", "rate=0"):  # fmt: skip
        with pytest.raises(SourceError) as caught:
            opened(f"{tmp_path / 'a.csv'}?{query}")
        assert "\n" not in str(caught.value) and ";" in str(caught.value)


def test_a_frozen_value_is_no_data(tmp_path: Path) -> None:
    values = S.copy()
    values[500:1250] = 5.0  # 15 s
    (tmp_path / "a.csv").write_text(table(stamps(T), numbers(values)))
    source, found = opened(str(tmp_path / "a.csv"))
    reasons = windows(source, float(found.times[-1]))
    at = {round((i + 1) * HOP, 3): reason for i, reason in enumerate(reasons)}
    assert at[10.0] == "" and at[18.0] == ""  # not known yet
    assert all("frozen at one value" in at[t] for t in (20.5, 22.0, 24.5)), at
    assert at[29.5] == ""


# ---- the files of the cases, where they are there --------------------------------------------------------------------

CASES = {
    "ok.csv": "used", "crlf.csv": "used", "os_ok.txt": "used", "empatica_ok.csv": "used",
    "burst_20us.csv": "used", "burst_us.csv": "used", "burst_ns.csv": "used",
    "bad_time.csv": "lost 1", "min_rtc.csv": "lost 1", "dst_back.csv": "moved", "reset_ms.csv": "moved",
    "unix_ms.csv": "used", "second_stamps.csv": "moved", "tab_time_gsr.txt": "used", "os_multi.txt": "used",
    "os_two_eda.txt": "column=A4", "os_two_eda.txt?column=A4": "used", "os_conv.txt": "used", "os_conv_key.txt": "used",
    "empatica_comma.csv": "used", "semi_comma.csv": "used", "acc.csv": "acceleration", "temp.csv": "TEMP.csv",
    "kohm.csv": "unit=", "volts.csv": "unit=", "raw_adc.csv": "unit=", "volts.csv?unit=V": "used", "shimmer.csv": "used",
    "kohm.csv?unit=kohm": "30.8", "raw_adc.csv?unit=adc": "0.73", "boot_line.csv": "moved", "headless.csv": "used",
    "na.csv": "used", "quoted.csv": "used", "iso.csv": "used", "utf16.csv": "used",
}  # fmt: skip


@pytest.fixture(scope="module")
def cases() -> Path:
    path = Path(os.environ.get("JMT_EDGE_TEST_CASES", Path(__file__).resolve().parents[3] / "shared/cases/eda"))
    if not path.is_dir():
        pytest.skip(f"no cases at {path} (set JMT_EDGE_TEST_CASES)")
    return path


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, cases: Path) -> None:
    expected = CASES[name]
    if expected not in ("used", "moved", "lost 1", "30.8", "0.73"):
        with pytest.raises(SourceError, match=expected):
            opened(str(cases / name))
        return
    source, found = opened(str(cases / name))
    middle = {"30.8": 30.81, "0.73": 0.732}.get(expected, 5.1)
    assert np.nanmedian(found.values) == pytest.approx(middle, rel=0.06)
    assert found.lost == (1 if expected == "lost 1" else 0)
    assert (found.altered > 0) == (expected == "moved" or name.startswith("burst"))
    reasons = windows(source, min(float(found.times[-1]), 9.0 if name == "min_rtc.csv" else 30.0))
    assert sum(not r for r in reasons[12:]) >= 0.7 * len(reasons[12:])


def test_live_says_what_was_lost_and_refuses_with_code_2(tmp_path: Path) -> None:
    live = ("live", "--task", "pain", "--camera", "none", "--speed", "max", "--output", "jsonl", "--eda")
    done = jmt_edge(*live, write(tmp_path, SITUATIONS["one stamp + 200 000 s"]))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and 55 <= len(lines) <= 62
    assert lines[-1]["quality"]["eda"]["lost"] == 1 and lines[-1]["outputs"]
    assert "eda: eda.csv: 1 sample lost; row 302: a wild time stamp" in done.stderr
    for name in ("kohm in gsr", "Empatica ACC"):
        done = jmt_edge(*live, write(tmp_path, SITUATIONS[name]))
        assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout
        assert SITUATIONS[name].reason in done.stderr


def test_inspect(tmp_path: Path) -> None:
    good = write(tmp_path, SITUATIONS["one stamp + 200 000 s"])
    bad = write(tmp_path, Row(SITUATIONS["kohm in gsr"].text, name="k.csv"))
    done = jmt_edge("inspect", "--json", good, f"{bad}?unit=kohm")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert done.returncode == 0
    assert (first["samples"], first["lost"], first["usable"]) == (1499, 1, 1.0)
    assert first["rate"] == pytest.approx(50) and first["seconds"] == pytest.approx(29.98)
    assert second["use"] == f"--eda '{bad}?unit=kohm'" and second["middle"] == pytest.approx(5, abs=0.6)
    done = jmt_edge("inspect", good, bad)
    assert done.returncode == 2 and "refused" in done.stdout and "unit=" in done.stdout


def test_inspect_draws_what_it_found(tmp_path: Path) -> None:
    """A gap is grey, an unusable stretch red, elsewhere the signal is blue on white: read from the picture's pixels."""
    import cv2

    pytest.importorskip("matplotlib")
    values = S.copy()
    values[500:1000] = 90.0  # saturated for 10 s
    keep = np.delete(np.arange(N), np.s_[1100:1250])
    (tmp_path / "a.csv").write_text(table(stamps(T[keep]), numbers(values[keep])))
    bad = write(tmp_path, Row(SITUATIONS["kohm in gsr"].text, name="k.csv"))
    done = jmt_edge("inspect", str(tmp_path / "a.csv"), bad, "--plot", str(tmp_path / "p.png"))
    assert done.returncode == 2 and "p.png written" in done.stderr and "Traceback" not in done.stderr
    picture = cv2.imread(str(tmp_path / "p.png")).astype(int)
    assert picture.shape[1] == 1200
    blue, green, red = (picture[..., k] for k in range(3))
    grey = (abs(blue - 153) < 3) & (abs(green - 153) < 3) & (abs(red - 153) < 3)
    pink = (red > 235) & (green < 215) & (abs(green - blue) < 12)
    wide = [int((mask.sum(axis=0) > 60).sum()) for mask in (grey, pink)]
    plot = 1200 * 0.93  # the axes' share of the width, for 30 s
    assert wide[0] == pytest.approx(plot * 3 / 30, rel=0.15)  # 3 s without data
    assert wide[1] > plot * 10 / 30 * 0.8  # the windows that the 10 s spoil
    done = jmt_edge("inspect", str(tmp_path / "a.csv"), "--plot", str(tmp_path / "p.doc"))
    assert done.returncode == 2 and "give a .png, .pdf or .svg" in done.stderr
