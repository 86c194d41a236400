"""The seven benchmarks as small files of the columns, types and folders in which they are published.

Columns: the data set cards on the hub of AI4Math/MathVista, CaraJ/MathVerse-lmmseval, MathLLMs/MathVision, We-Math/We-Math, MMMU/MMMU,
MMMU/MMMU_Pro and lmms-lab/HallusionBench. Questions are made up.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

Row = dict[str, Any]


def png(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(seed).randbytes(32 * 32 * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def image(seed: int = 0) -> Row:
    """As the hub embeds it."""
    return {"bytes": png(seed), "path": None}


def mathvista() -> list[Row]:
    def row(pid: int, question: str, answer: str, **fields: Any) -> Row:
        metadata = {"category": "math-targeted-vqa", "task": "geometry problem solving", "grade": "high school", "skills": ["arithmetic"]}
        common = {"choices": None, "unit": None, "precision": None, "question_type": "free_form", "answer_type": "integer"}
        start = {"pid": str(pid), "question": question, "image": f"images/{pid}.jpg", "decoded_image": image(pid), "answer": answer}
        return {**start, **common, "metadata": metadata, "query": "Hint: ... Question: ...", **fields}

    return [
        row(1, "How long is AB?", "1.2", precision=1.0, answer_type="float", unit="m"),
        row(2, "Which is larger?", "-5", choices=["3", "-5", "x^2"], question_type="multi_choice", answer_type="text"),
        row(3, "How many cubes are there?", "4"),
        row(4, "Which two bars are equal?", "[1, 3]", answer_type="list"),
    ]


def mathverse() -> list[Row]:
    versions = ("Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only")
    rows = []
    for problem, (question, choices, answer) in enumerate(
        [("Find angle A.", "\nChoices:\nA:60°\nB:70°", "B"), ("Find x.", "", "7")], start=1
    ):
        for number, version in enumerate(versions):
            whole = question + choices
            rows.append(
                {
                    "sample_index": str(len(rows) + 1),
                    "problem_index": str(problem),
                    "problem_version": version,
                    "question": "" if version == "Vision Only" else whole,
                    "image": image(10 * problem + number),
                    "answer": answer,
                    "question_type": "multi-choice" if choices else "free-form",
                    "metadata": {"split": "testmini", "source": "GeoQA", "subject": "Plane Geometry", "subfield": "Angle"},
                    "query_wo": "Please directly answer the question ...",
                    "query_cot": "Please first conduct reasoning ...",
                    "question_for_eval": whole,
                }
            )
    return rows


def mathvision() -> list[Row]:
    def row(number: int, question: str, options: list[str], answer: str, level: int, subject: str) -> Row:
        place = {"image": f"images/{number}.jpg", "decoded_image": image(number), "solution": None}
        return {"id": str(number), "question": question, "options": options, **place, "answer": answer, "level": level, "subject": subject}

    return [
        row(1, "Which figure fits?\n<image1>", ["A", "B", "C", "D", "E"], "D", 1, "logic"),
        row(2, "What is the area?\n<image1>", [], "12", 5, "metric geometry - area"),
    ]


def wemath() -> list[Row]:
    rows = []
    for steps, identity in ((2, "2steps_7"), (3, "3steps_1")):
        for key in (*map(str, range(1, steps + 1)), "multi"):
            rows.append(
                {
                    "ID": identity,
                    "split": "testmini",
                    "knowledge concept": "Area of Circles",
                    "question": f"What is asked in part {key} of {identity}?",
                    "option": "A. 3 cm; B. 4 cm; C. No correct answer",
                    "answer": "B",
                    "image_path": image(len(rows)),
                    "key": f"{steps}steps_{key}",
                    "question number": len(rows),
                    "knowledge concept description": "...",
                }
            )
    return rows


def mmmu() -> list[Row]:
    def row(identity: str, question: str, options: str, answer: str, kind: str, images: int) -> Row:
        shown = {f"image_{number}": image(number) if number <= images else None for number in range(1, 8)}
        rest = {"explanation": "", "img_type": "['Tables']", "topic_difficulty": "Easy", "subfield": "x"}
        return {"id": identity, "question": question, "options": options, "answer": answer, "question_type": kind, **shown, **rest}

    return [
        row("validation_Accounting_1", "What does <image 1> show?", "['$6', \"O'Neill's\", '<image 2>']", "B", "multiple-choice", 2),
        row("validation_Art_Theory_12", "Who painted <image 1>?", "[]", "['Monet', 'Claude Monet']", "open", 1),
        row("validation_Math_3", "What is the slope in <image 1>?", "[]", "2", "open", 1),
    ]


def mmmu_pro() -> dict[str, list[Row]]:
    shown = {f"image_{number}": image(number) if number == 1 else None for number in range(1, 8)}
    options = str([f"choice {number}" for number in range(10)])
    identity = {"id": "test_History_1", "options": options, "answer": "J", "subject": "History"}
    standard = {**identity, "question": "When was <image 1> made?", **shown, "img_type": "[]", "topic_difficulty": "Hard"}
    vision = {**identity, "image": image(9), "explanation": ""}
    four = {**standard, "options": str(["a", "b", "c", "d"]), "answer": "A"}
    return {"standard (10 options)": [standard], "vision": [vision], "standard (4 options)": [four]}


def hallusionbench() -> list[Row]:
    rows = []
    for figure, question, answer in (("0", "0", "1"), ("0", "1", "0"), ("1", "0", "0"), ("1", "1", "1")):
        place = {
            "category": "VD",
            "subcategory": "illusion",
            "visual_input": "1",
            "set_id": "3",
            "figure_id": figure,
            "question_id": question,
        }
        asked = {"question": f"Is line {question} longer?", "gt_answer": answer, "gt_answer_details": "..."}
        rows.append({**place, **asked, "sample_note": "x", "filename": "./x.png", "image": image(int(figure))})
    return rows


LAYOUT: dict[str, dict[str, list[Row]]] = {
    "mathvista": {"data/testmini-00000-of-00001-725687bf7a18d64b": mathvista()},
    "mathverse": {"testmini": mathverse(), "testmini_text_only": mathverse()[:1]},
    "mathvision": {
        "data/testmini-00000-of-00001-f8ff70fcb2f29b1d": mathvision(),
        "data/test-00000-of-00001-3532b8d3f1b4047a": mathvision()[:1],
    },
    "wemath": {"data/testmini-00000-of-00001-adbfe22dcd3558e6": wemath()},
    "mmmu": {
        "Accounting/validation-00000-of-00001": mmmu()[:1],
        "Art_Theory/validation-00000-of-00001": mmmu()[1:2],
        "Math/validation-00000-of-00001": mmmu()[2:],
        "Math/dev-00000-of-00001": mmmu()[:1],
    },
    "mmmu-pro": {f"{config}/test-00000-of-00001": rows for config, rows in mmmu_pro().items()},
    "hallusionbench": {"data/image-00000-of-00001": hallusionbench(), "data/non_image-00000-of-00001": []},
}
NUM_PROMPTS = {"mathvista": 4, "mathverse": 10, "mathvision": 2, "wemath": 7, "mmmu": 3, "mmmu-pro": 2, "hallusionbench": 4}


def write_benchmark(name: str, folder: Path) -> Path:
    """The folder of one benchmark, as a clone of its data set."""
    for path, rows in LAYOUT[name].items():
        file = folder / f"{path}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        if rows:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return folder
