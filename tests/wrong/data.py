"""Wrong data files, predictions and templates."""

# ruff: noqa: E501 - a message is one line, as a user sees it.

from __future__ import annotations

from tests.wrong.places import Wrong, cut, file, folder, loop, table

ROWS = [
    Wrong(
        line="grade rows.jsonl",
        error="'rows.graded.jsonl' exists, maybe of another file",
        hint="--out rows.graded.jsonl replaces it",
        makes=(
            file("rows.jsonl", '{"prediction": "1", "answer": "1"}'),
            file("rows.graded.jsonl", "mine"),
        ),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="unknown benchmark 'd.jsonl'",
        hint="there is no such file; the path counts from here",
        makes=(folder("d.jsonl"),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="'d.jsonl' holds no row",
        hint="a row per problem: a question and an answer",
        makes=(file("d.jsonl", ""),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl:1: not JSON (Expecting property name enclosed in double quotes)",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.jsonl", "{question}"),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl:1: type list, not an object",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.jsonl", "[1]\n"),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl:1: type int, not an object",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.jsonl", "3\n"),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 2 has no answer",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": "2"}\n{"question": "1+2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 2 has no question",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(
            file(
                "d.jsonl", '{"question": "1+1", "answer": "2"}\n{"question": "", "answer": "3"}\n'
            ),
        ),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: no column has a usual name of the answer; its columns: question",
        hint="for a benchmark: opo eval --columns answer=NAME; for training: --set data.columns.answer=NAME",
        makes=(file("d.jsonl", '{"question": "1+1"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: no column has a usual name of the question; its columns: text, answer",
        hint="for a benchmark: opo eval --columns question=NAME; for training: --set data.columns.question=NAME",
        makes=(file("d.jsonl", '{"text": "1+1", "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: 'question' or 'problem': which is the question; its columns: question, problem, answer",
        hint="for a benchmark: opo eval --columns question=NAME; for training: --set data.columns.question=NAME",
        makes=(file("d.jsonl", '{"question": "1+1", "problem": "1+2", "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: type int, not text",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": 5, "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: type dict, not text or a number",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": {"a": 2}}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: type bool, not text or a number",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": true}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: nan, not a number",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": NaN}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: 501 characters without \\boxed{} or '####': no answer",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": "' + "a" * 501 + '"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: a \\boxed{ that is never closed",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": "\\\\boxed{2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl:1: not JSON (Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit)",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": ' + "9" * 5000 + "}\n"),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: row 1 cannot be read: half of a surrogate pair, which is no text",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(file("d.jsonl", '{"question": "\\ud800", "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run --columns id=id",
        error="d.jsonl: id 'a' is there twice in column 'id'",
        hint="results are kept per id; name a column whose values are unique, or none",
        makes=(
            file(
                "d.jsonl",
                '{"question": "1+1", "answer": "2", "id": "a"}\n{"question": "1+2", "answer": "3", "id": "a"}\n',
            ),
        ),
    ),
    Wrong(
        line="eval --data d.jsonl --run run --columns answer=solution",
        error="d.jsonl: there is no column 'solution'; its columns: question, answer",
        hint="for a benchmark: opo eval --columns answer=NAME; for training: --set data.columns.answer=NAME",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl:1: not UTF-8",
        hint="save the file as UTF-8",
        makes=(file("d.jsonl", b'{"question": "1+1 \xff", "answer": "2"}\n'),),
    ),
    Wrong(
        line="eval --data d.jsonl.gz --run run",
        error="unknown benchmark 'd.jsonl.gz'",
        hint="a data file's name ends in .jsonl, .json, .parquet, .csv",
        makes=(file("d.jsonl.gz", b"\x1f\x8b\x08\x00damaged"),),
    ),
    Wrong(
        line="eval --data d.txt --run run",
        error="unknown benchmark 'd.txt'",
        hint="a data file's name ends in .jsonl, .json, .parquet, .csv",
        makes=(file("d.txt", "1+1"),),
    ),
    Wrong(
        line="eval --data d.json --run run",
        error="d.json:1: not JSON (Expecting property name enclosed in double quotes)",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.json", "{"),),
    ),
    Wrong(
        line="eval --data d.json --run run",
        error="d.json: item 1 has type int, not an object",
        hint="an array of objects, each with a question and an answer",
        makes=(file("d.json", "[1, 2]"),),
    ),
    Wrong(
        line="eval --data d.json --run run",
        error="'d.json' holds no row",
        hint="a row per problem: a question and an answer",
        makes=(file("d.json", "[]"),),
    ),
    Wrong(
        line="eval --data d.json --run run",
        error="d.json: nested too deeply",
        hint="a row holds text and numbers",
        makes=(file("d.json", "" + "[" * 5000 + ""),),
    ),
    Wrong(
        line="eval --data d.jsonl --run run",
        error="d.jsonl: nested too deeply",
        hint="a row holds text and numbers",
        makes=(file("d.jsonl", "" + "[" * 100000 + ""),),
    ),
    Wrong(
        line="eval --data d.csv --run run",
        error="d.csv:2: not as many cells as the header",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.csv", "question,answer\n1+1\n"),),
    ),
    Wrong(
        line="eval --data d.csv --run run",
        error="d.csv:2: not CSV (unexpected end of data)",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.csv", 'question,answer\n"1+1,2\n'),),
    ),
    Wrong(
        line="eval --data d.csv --run run",
        error="'d.csv' holds no row",
        hint="a row per problem: a question and an answer",
        makes=(file("d.csv", "question,answer\n"),),
    ),
    Wrong(
        line="eval --data d.csv --run run",
        error="d.csv:2: not UTF-8",
        hint="save the file as UTF-8",
        makes=(file("d.csv", b"question,answer\n1+1,\xe9\n"),),
    ),
    Wrong(
        line="eval --data d.parquet --run run",
        error="'d.parquet' is no readable Parquet file: Could not open Parquet input source 'd.parquet': Parquet file size is 17 bytes, smaller than the size reported by footer's (543450471bytes)",
        hint="fetch or write it again",
        makes=(file("d.parquet", b"PAR1 damaged PAR1"),),
    ),
    Wrong(
        line="eval --data d.parquet --run run",
        error="'d.parquet' is no readable Parquet file: Could not open Parquet input source 'd.parquet': Parquet file size is 0 bytes",
        hint="fetch or write it again",
        makes=(file("d.parquet", b""),),
    ),
    Wrong(
        line="eval --data d.parquet --run run",
        error="'d.parquet' is no readable Parquet file: Could not open Parquet input source 'd.parquet': Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.",
        hint="fetch or write it again",
        makes=(
            table("d.parquet", {"question": ["1+1", "1+2"], "answer": ["2", "3"]}),
            cut("d.parquet", 200),
        ),
    ),
    Wrong(
        line="eval --data d.parquet --run run",
        error="d.parquet: row 1 cannot be read: type int, not text",
        hint="mend or remove the row; a benchmark is evaluated whole",
        makes=(table("d.parquet", {"question": [1], "answer": [2]}),),
    ),
    Wrong(
        line="eval --data d.parquet --run run",
        error="d.parquet: no column has a usual name of the question; its columns: text",
        hint="for a benchmark: opo eval --columns question=NAME; for training: --set data.columns.question=NAME",
        makes=(table("d.parquet", {"text": ["1+1"]}),),
    ),
    Wrong(
        line="eval --data a/d.jsonl --data b/d.jsonl --run run",
        error="'a/d.jsonl' and 'b/d.jsonl' are both called 'd' in results",
        hint="rename one of the files",
        makes=(
            file("a/d.jsonl", "{}"),
            file("b/d.jsonl", "{}"),
        ),
    ),
    Wrong(
        line="eval --data 'no\nwhere.jsonl' --run run",
        error="unknown benchmark 'no\\nwhere.jsonl'",
        hint="there is no such file; the path counts from here",
    ),
    Wrong(
        line="eval --data '[bold]d[/bold].jsonl' --run run",
        error="unknown benchmark '[bold]d[/bold].jsonl'",
        hint="there is no such file; the path counts from here",
    ),
    Wrong(
        line="train --preset smoke --set data.source=d.jsonl",
        error="data.source = 'd.jsonl': there is no such file",
        hint="the path counts from here",
        makes=(folder("d.jsonl"),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.jsonl",
        error="d.jsonl:1: not JSON (Expecting value)",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.jsonl", "x"),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.jsonl",
        error="d.jsonl: no column has a usual name of the answer; its columns: question",
        hint="for a benchmark: opo eval --columns answer=NAME; for training: --set data.columns.answer=NAME",
        makes=(file("d.jsonl", '{"question": "1+1"}'),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.jsonl",
        error="data.source = 'd.jsonl': no problem is left to train on",
        hint="of 1 rows, 1 cannot be used (no question or answer: --set data.columns.answer=NAME), 0 overlap benchmarks",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": ""}'),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.jsonl --set data.columns.answer=gold",
        error="d.jsonl: there is no column 'gold'; its columns: question, answer",
        hint="for a benchmark: opo eval --columns answer=NAME; for training: --set data.columns.answer=NAME",
        makes=(file("d.jsonl", '{"question": "1+1", "answer": "2"}'),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.csv",
        error="d.csv:2: not as many cells as the header",
        hint="mend or remove the line; JSONL has an object per line",
        makes=(file("d.csv", "question,answer\n1+1\n"),),
    ),
    Wrong(
        line="prepare --preset smoke --set data.source=d.txt",
        error="unknown training set 'd.txt'",
        hint="known training sets: MATH, GSM8K-train, DeepScaleR, DAPO-17k, Skywork-OR1; or a hub data set (owner/name), or a file (.jsonl, .json, .parquet, .csv)",
        makes=(file("d.txt", "1"),),
    ),
    Wrong(
        line="eval tiny-easy --run run --template t.txt",
        error="template file 't.txt' holds {question} 0 times",
        hint="it must hold {question} once, as it stands",
        makes=(file("t.txt", "no place"),),
    ),
    Wrong(
        line="eval tiny-easy --run run --template t.txt",
        error="template file 't.txt' does not read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        hint="give a text file in UTF-8",
        makes=(file("t.txt", b"\xff{question}"),),
    ),
    Wrong(
        line="eval tiny-easy --run run --template t.txt",
        error="unknown template 't.txt'",
        hint="known templates: auto, line, plain, boxed, chat, qwen-math, qwen-boxed, r1-distill, r1-zero, dapo",
        makes=(loop("t.txt"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' is empty",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", ""),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 is no JSON: Expecting value",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", "x"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 is a int, not an object",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", "3"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 is a list, not an object",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", "[1]"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 has no field 'prediction'",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", "{}"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 has no field 'answer' or 'gold'",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", '{"prediction": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1: the reference answer is empty",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": ""}'),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1: prediction and answer must be text or numbers",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", '{"prediction": ["1"], "answer": "1"}'),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 holds a number of too many digits",
        hint="write it as text, in quotes",
        makes=(file("rows.jsonl", '{"prediction": "1", "answer": 1' + "0" * 5000 + "}"),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' line 1 is no JSON that can be read: it nests too deeply",
        hint='one row a line, like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", "" + "[" * 100000 + ""),),
    ),
    Wrong(
        line="grade rows.jsonl",
        error="'rows.jsonl' is no text in UTF-8",
        hint='JSONL: rows like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl", b"\xff"),),
    ),
    Wrong(
        line="grade rows.jsonl.gz",
        error="'rows.jsonl.gz' is no text in UTF-8",
        hint='JSONL: rows like {"prediction": "... \\\\boxed{7}", "answer": "7"}',
        makes=(file("rows.jsonl.gz", b"\x1f\x8b"),),
    ),
]
