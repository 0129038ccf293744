"""What benchmarks say: exponents of known curves, tables of several machines, files that cannot be read."""

import numpy as np
import pytest

from reprolib import figures, paths, results, timings
from reprolib.record import RecordError
from reprolib.timings import Benchmark


def stage(piece, images, seconds, *, product=None, peak=2**20, **changed):
    times = {"ours": seconds, "product": images**2 * 1e-8 if product is None else product}
    row = {"piece": piece, "images": images, "dim": 2048, "clusters": images, "queries": 0, "labels": ""}
    row |= {"against": [], "repetitions": 5, "note": "", "seconds": times, "times": {}, "exact": True}
    return row | {"peak_bytes": dict.fromkeys(times, peak)} | changed


def machine(device="a CPU", *, power=2.0, factor=1.2, **changed):
    sizes = (1000, 2000, 4000, 8000)
    rows = [stage("dbc", n, factor * 1e-8 * 8000 ** (2 - power) * n**power, peak=4 * n * n) for n in sizes]
    versions = {"python": "3", "torch": "2", "numpy": "2", "scipy": "1"}
    provenance = {"device": device, "device_type": "cpu", "threads": 2, "cores": 2, "versions": versions}
    return Benchmark(provenance | {"commit": "c", "date": "2026-01-01"} | changed, rows)


def test_the_exponent_of_a_power_law_is_its_power():
    rows = timings.growth([machine(power=1.7)])
    ours = rows[rows["contender"] == "ours"]
    assert timings.exponent(ours) == pytest.approx(1.7)
    assert timings.exponent(ours, "MiB") == pytest.approx(2)


def test_the_exponent_is_taken_where_constant_cost_no_longer_shows():
    benchmark = machine()
    benchmark.rows[0]["seconds"]["ours"] = 1.0
    rows = timings.growth([benchmark])
    assert timings.exponent(rows[rows["contender"] == "ours"]) == pytest.approx(2)


def test_one_size_alone_gives_no_exponent_and_no_verdict():
    benchmark = machine()
    del benchmark.rows[1:]
    assert np.isnan(timings.exponent(timings.growth([benchmark])))
    assert timings.grows_at_most(["dbc"], 2.1)([benchmark]) == []


def test_margins_are_positive_where_a_claim_holds():
    assert timings.grows_at_most(["dbc", "buc"], 2.1)([machine()]) == [pytest.approx(0.1)]
    assert timings.grows_at_most(["dbc"], 2.1)([machine(power=3)]) == [pytest.approx(-0.9)]
    assert timings.costs_at_most(["dbc"], 2)([machine(factor=1.2)]) == [pytest.approx(0.8)]
    benchmark = machine(factor=1)  # 0.64 s at N = 8000
    assert timings.later_costs_less(["dbc"])([benchmark]) == []
    benchmark.rows += [stage("dbc", 8000, seconds, clusters=few) for seconds, few in ((0.16, 4000), (0.1, 2000))]
    assert timings.later_costs_less(["dbc", "buc"])([benchmark]) == [pytest.approx(0.75)]
    assert timings.later_costs_less(["dbc", "buc"], by=0.8)([benchmark]) == [pytest.approx(-0.05)]


def test_machines_stand_in_columns_of_their_own(capsys, results_folder):
    benchmarks = [machine(), machine("a GPU", power=3, device_type="cuda")]
    assert timings.exponents(benchmarks)["column"].tolist() == ["a CPU, 2 threads", "a GPU"]
    assert timings.exponents(benchmarks)["exponent"].tolist() == ["2.00", "3.00"]
    claim = results.Claim("quadratic", timings.grows_at_most(["dbc"], 2.1), "in the exponent", "stages")
    results.verdict(claim, benchmarks, exhibit="DBC Section III-E", expected="partly")
    printed = capsys.readouterr().out
    assert "reproduced on a CPU, 2 threads: +0.10 in the exponent, one stage" in printed
    assert "not reproduced on a GPU: -0.90 in the exponent" in printed
    assert results.provenance(benchmarks)["column"].tolist() == ["a CPU, 2 threads", "a GPU"]


def test_a_curve_holds_first_stages_in_the_full_dimension_alone():
    benchmark = machine()
    benchmark.rows += [stage("dbc", 8000, 1.0, clusters=4000), stage("dbc", 200, 1.0, dim=64)]
    benchmark.rows += [stage("average tree", 2000, 1.0), stage("ranking", 100, 1.0, clusters=0, queries=5)]
    assert len(timings.growth([benchmark])) == 2 * 4


def test_the_table_names_size_ratio_memory_and_the_others():
    row = stage("dbc", 2000, 0.06, product=0.04, peak=3 * 2**20, exact=False)
    row["seconds"]["scipy"] = 2.5
    update = stage("table update", 16, 9e-5, clusters=300, labels="pairs", exact=None)
    del update["seconds"]["product"]
    table = timings.table(Benchmark({}, [row, update]))
    first, second = table.to_dict("records")
    assert (first["size"], first["ours"], first["product"]) == ("N 2,000, C 2,000, d 2,048", "60 ms", "40 ms")
    assert (first["ours / product"], first["extra MiB"], first["exact"]) == ("1.50", "3", "NO")
    assert first["others"] == "scipy 2.5 s"
    assert (second["piece"], second["ours"], second["product"]) == ("table update pairs", "90 µs", "")


def test_what_is_saved_is_read_back_and_the_file_is_named_by_its_machine(results_folder):
    file = machine("Xeon(R) 2.1 GHz").save(paths.STORED_BENCH)
    assert file.name == "xeon_r_2_1_ghz_2_threads.json"
    assert results.load_or_measure() == [machine("Xeon(R) 2.1 GHz")]
    machine("a GPU").save(paths.STORED_BENCH)
    assert len(results.load_or_measure()) == 2


def test_nothing_measured_is_an_error_that_names_the_command(results_folder):
    with pytest.raises(RecordError, match="make bench"):
        results.load_or_measure()
    with pytest.raises(ValueError, match="source"):
        results.load_or_measure(source="maybe")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', '{"format": 1}', "\x00"])
def test_a_file_that_is_no_benchmark_is_an_error_that_names_it(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(RecordError, match=r"broken\.json"):
        timings.load_benchmark(file)


def test_curves_are_drawn_for_every_machine(results_folder):
    figures.growth(timings.growth([machine(), machine("a GPU")]), "growth")
    assert (paths.FIGURES / "growth.png").stat().st_size > 10_000
