"""The files of the golden values: a line for each output, so that changes can be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VALUES = Path(__file__).with_name("values.json")
MADE_IN = Path(__file__).with_name("made_in.json")

Values = dict[str, dict[str, dict[str, Any]]]


def load() -> Values:
    """Return what is stored: by case, then by output."""
    return json.loads(VALUES.read_text(encoding="utf-8")) if VALUES.exists() else {}


def save(values: Values) -> None:
    """Write all values."""
    cases = (f"{json.dumps(case)}: {_outputs(values[case])}" for case in sorted(values))
    VALUES.write_text("{\n" + ",\n".join(cases) + "\n}\n", encoding="utf-8")


def load_made_in() -> dict[str, str]:
    """Return by case in what surroundings its values were made."""
    return json.loads(MADE_IN.read_text(encoding="utf-8")) if MADE_IN.exists() else {}


def save_made_in(made_in: Mapping[str, str]) -> None:
    """Write that of all cases."""
    MADE_IN.write_text(json.dumps(made_in, indent=0, sort_keys=True) + "\n", encoding="utf-8")


def _outputs(outputs: Mapping[str, Any]) -> str:
    lines = (f"  {json.dumps(name)}: {_output(outputs[name])}" for name in sorted(outputs))
    return "{\n" + ",\n".join(lines) + "\n}"


def _output(output: Mapping[str, Any]) -> str:
    if "table" in output:
        rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in output["table"])
        return f'{{"table": [\n{rows}\n  ]}}'
    return json.dumps(output)
