"""Sample files as spreadsheets and hostile hands leave them: read, or refused in one line with the place."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from firstlight.errors import ConfigError, DataError, FirstlightError
from firstlight.export.form import numbered_form, read_form

SAMPLE = "Id,Category\n1,0\n2,0\n3,0\n"


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "sample.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        SAMPLE,
        "\ufeff" + SAMPLE,
        SAMPLE.replace("\n", "\r\n"),
        SAMPLE.rstrip("\n"),
        SAMPLE + "\n\n",
        "\ufeff" + SAMPLE.replace("\n", "\r\n") + "\r\n",
        SAMPLE.replace("\n", "\r"),
        '"Id","Category"\n"1","0"\n"2","0"\n"3","0"\n',
    ],
    ids=["plain", "BOM", "CRLF", "no last newline", "empty lines at the end", "a spreadsheet's", "old Mac", "quoted"],
)
def test_a_sample_is_read_whatever_wrote_it(tmp_path: Path, content: str) -> None:
    """D21, fault 39."""
    form = read_form(written(tmp_path, content))
    assert (form.id_column, form.label_column, form.ids, form.labels) == ("Id", "Category", ("1", "2", "3"), ("0", "0", "0"))
    assert form.lines == (2, 3, 4)
    assert form.with_labels(["7", "8", "9"]) == "Id,Category\n1,7\n2,8\n3,9\n"


def test_other_encodings_are_read_when_they_are_named(tmp_path: Path) -> None:
    """Fault 39."""
    text = "Größe,Kategorie\n1,0\n"
    assert read_form(written(tmp_path, text.encode("latin-1")), "latin-1").header == "Größe,Kategorie"
    assert read_form(written(tmp_path, text.encode("utf-16")), "utf-16").header == "Größe,Kategorie"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("Größe,Kategorie\n1,0\n".encode("latin-1"), "is not UTF-8 (byte 2 is 0xf6); add --encoding latin-1"),
        (SAMPLE.encode("utf-16"), "UTF-16 (byte 0 is 0xff); add --encoding utf-16"),
        (SAMPLE.encode() + b"4,\xe9\n", "(byte 26 is 0xe9)"),
        (SAMPLE.encode() + b"4,\xc3", "not UTF-8 (byte 26 is 0xc3)"),
        (SAMPLE.replace(",", ";"), "line 1 has semicolons where commas are needed; save it"),
        (SAMPLE.replace(",", "\t"), "line 1 has tabs where commas are needed"),
        (SAMPLE.replace("2,", "2\0,"), "line 3 holds a NUL character"),
        (SAMPLE.replace("2,0", '2,"0\n1"'), "line 3: a quoted field goes over to the next line"),
        (SAMPLE.replace("2,0", '2,"0'), "is no CSV (unexpected end of data)"),
        (SAMPLE.replace("2,0", '2,"0"1'), "line 3 is no CSV"),
        (SAMPLE + "2,1\n", "line 5: id '2' stands in line 3 too"),
        (SAMPLE + "002,1\n", "line 5: id '002' stands in line 3 too"),
        (SAMPLE + ",1\n", "line 5 has no id"),
        (SAMPLE + "\n4,1\n", "line 5 is empty, and rows follow it"),
        ("\n" + SAMPLE, "line 1 is empty"),
        (SAMPLE + "4\n", "line 5: an id and a label are expected, found 1 columns"),
        (SAMPLE + "4,1,2\n", "line 5: an id and a label are expected, found 3 columns"),
        (SAMPLE.partition("\n")[2], "line 1: '1,0' is no header; put one above it"),
        ("Id,Id\n1,0\n", "the columns are called 'Id' and 'Id'; give two names"),
        (",Category\n1,0\n", "the columns are called '' and 'Category'"),
        ("Id,Category\n", "has a header and no rows"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("<html><body>\n<p>sign in</p>\n", "line 1: an id and a label are expected, found 1 columns"),
        ("Id," + "x" * 200_000, "is no CSV (field larger than field limit"),
    ],
)
def test_what_is_no_sample_is_named_by_its_line(tmp_path: Path, content: str | bytes, says: str) -> None:
    """Faults 39 and 40."""
    with pytest.raises(DataError) as caught:
        read_form(written(tmp_path, content))
    message = str(caught.value)
    assert says in message and str(tmp_path / "sample.csv") in message
    assert "\n" not in message and ";" in message and len(message) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("encoding", ["klingon", "hex", "rot13", "", "utf\0"])
def test_an_encoding_that_is_none(tmp_path: Path, encoding: str) -> None:
    with pytest.raises((ConfigError, DataError)):
        read_form(written(tmp_path, "Größe,Kategorie\n1,0\n".encode("latin-1")), encoding)


@pytest.mark.parametrize("name", ["nowhere.csv", ".", "a\0b"])
def test_a_path_that_is_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"; name a CSV file|name a CSV"):
        read_form(tmp_path / name)


def test_a_file_of_another_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("wb") as handle:
        handle.truncate(2**30)
    with pytest.raises(DataError, match=r"has 1,024 MiB, too many"):
        read_form(path)


FIELDS = st.sampled_from([*map(str, range(12)), "", "cat", '"', '"a\nb"', "007", "-1", "1.5", "é", " 3", "١", "9" * 30, "\ufeff", "=1+1"])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "", "\0", ";"])
LINES = st.lists(st.tuples(st.lists(FIELDS, min_size=0, max_size=3), ENDS), max_size=8)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.sampled_from(["", "\ufeff", "Id,Category\n"]), LINES, st.sampled_from(["utf-8", "utf-16", "latin-1"])).map(
            lambda made: (made[0] + "".join(",".join(fields) + end for fields, end in made[1])).encode(made[2], errors="replace")
        ),
    )
)
@example(b"Id,Category\n1,0\n")
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    """Faults 39 and 40: 200 files; what is read can be written, and reads the same again."""
    path = written(tmp_path, content)
    try:
        form = read_form(path)
    except FirstlightError as error:
        assert "\n" not in str(error) and "; " in str(error)
        return
    assert len(form.ids) == len(form.labels) == len(form.lines) == len(set(form.ids)) > 0
    again = read_form(written(tmp_path, form.with_labels(form.labels)))
    assert (again.header, again.ids, again.labels) == (form.header, form.ids, form.labels)


def test_the_ids_of_the_course(tmp_path: Path) -> None:
    """D21: all 190,841 ids of the course are told apart, and the form without a sample is the same."""
    form = numbered_form(190_841, "Id", "Category", 1)
    path = written(tmp_path, form.with_labels(["0"] * 190_841))
    found = read_form(path)
    assert (found.ids, found.header) == (form.ids, "Id,Category")
    assert (found.ids[0], found.ids[-1]) == ("1", "190841")
