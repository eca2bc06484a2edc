"""The page: a report as one HTML file that loads nothing, from the numbers in `report.json`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

from dubio.training.evaluation import MC
from dubio.training.report import answer_promises_markup, markup
from dubio.training.report.markup import Numbers

CLASSES = 50  # lines of the table by class; of more, those of lowest accuracy
STYLE = """
:root { color-scheme: light dark; --text: #222; --back: #fff; --line: #ddd; --quiet: #666;
  --good: #176b2c; --bad: #a11; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --back: #181818; --line: #3a3a3a; --quiet: #999; --good: #6fce8a; --bad: #ff8080; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 68rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; font-size: .88em; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } .facts td + td { overflow-wrap: anywhere; }
figure { margin: 1rem 0; overflow-x: auto; } img { max-width: 100%; background: #fff; }
@media (max-width: 40rem) { img { max-width: none; } }
.wide { overflow-x: auto; } .quiet { color: var(--quiet); } .good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
"""
CAPTIONS = {
    "reliability": "Accuracy against confidence in 15 bins: on the diagonal, a confidence of 80% is right in 80%.",
    "risk_coverage": "Errors among the most confident share of the test rows. Stars are the accepted answers with the "
    "95% interval of their errors, dashed lines what is promised of them.",
    "scores": "P-values of test rows and of strangers. To the right of the dashed line inputs are flagged.",
    "roc": "Strangers that are caught against test rows that are flagged, for every threshold.",
    "resplits": "False alarms over divisions of the held-out rows into calibration and measured rows, and their law.",
    "acceptance": "Errors among accepted answers over divisions of the held-out rows, and what is promised of them.",
    "label_sets": "How many classes the sets of the test rows have, and how often the true one is among them.",
    "label_set_resplits": "Rows whose set misses the true class over divisions of the held-out rows, and their law.",
    "settling": "How far the first members' mean and standard deviation lie from those of all members.",
    "corruptions": "What damage does to accuracy, and how much of it is flagged.",
    "most_uncertain": "The test rows of largest predictive entropy.",
    "most_unfamiliar": "The test rows of largest composite score.",
}


def render(numbers: Numbers, pictures: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        numbers: As in `report.json`.
        pictures: PNG files by name.
    """
    model, promise = numbers["model"], numbers["promise"]

    def picture(name: str) -> str:
        if name not in pictures:
            return ""
        data = base64.b64encode(pictures[name]).decode()
        caption = escape(CAPTIONS[name])
        return (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}"><figcaption class="quiet">{caption}'
            "</figcaption></figure>"
        )

    sections = [
        ("Model and data", _model(numbers)),
        ("Both answers", _answers(numbers) + picture("reliability") + picture("risk_coverage") + _coverage(numbers)),
        ("By class", _by_class(numbers)),
        ("The promise on false alarms", _promise(promise) + picture("resplits")),
        (
            "The promise on accepted answers",
            answer_promises_markup.acceptances(numbers["acceptances"]) + picture("acceptance"),
        ),
        (
            "Label sets",
            answer_promises_markup.label_sets(numbers["label_sets"], model["classes"])
            + picture("label_sets")
            + picture("label_set_resplits"),
        ),
        ("Strangers", _out_of_distribution(numbers["out_of_distribution"]) + picture("scores") + picture("roc")),
        ("How many members it takes", picture("settling") + _settling(numbers["settling"])),
        ("Damaged inputs", picture("corruptions") + _corruptions(numbers["corruptions"])),
        ("The most uncertain inputs", picture("most_uncertain") + _examples(numbers["most_uncertain"])),
        ("The most unfamiliar inputs", picture("most_unfamiliar") + _examples(numbers["most_unfamiliar"])),
        ("What is not promised", markup.listing(numbers["not_promised"])),
        ("Monitoring", _monitoring(numbers["monitoring"])),
        ("What a new version must show", _requirements(numbers["new_version"])),
        ("Where each number belongs", _rules(numbers["rules"])),
    ]
    body = "\n".join(f"<section><h2>{escape(title)}</h2>\n{text}</section>" for title, text in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{escape(model['file'])}: report</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(numbers['data']['title'])}</h1>\n"
        f'<p class="quiet">Report of {escape(model["file"])}, {escape(numbers["date"])}. Figures are of the test rows, '
        "which nothing was fitted to; intervals are 95% intervals over the draw of these rows. The same numbers stand "
        f"in report.json.</p>\n{body}\n</body></html>\n"
    )


def _model(numbers: Numbers) -> str:
    model, data = numbers["model"], numbers["data"]
    provenance = model["provenance"]
    facts = [
        ("network", f"{model['network']}, {model['parameters']} parameters"),
        ("input", f"{model['input']} {model['shape']}"),
        ("configuration", f"{data['configuration']}, which says how the rows are read"),
        ("classes", f"{len(model['classes'])}: {markup.some(model['classes'])}"),
        ("committee", f"{model['members']} members; {'; '.join(model['sites'])}"),
        ("dropout rates", _rates(model["rates_factor"])),
        ("temperatures", ", ".join(f"{name} {value:.4g}" for name, value in model["temperature"].items())),
        ("scores", ", ".join(model["scores"])),
        ("weights", f"SHA-256 {provenance.get('weights_sha256', '')}"),
        (
            "calibrated",
            f"{provenance.get('date', '')}, {markup.some(f'{k} {v}' for k, v in provenance['versions'].items())}",
        ),
    ]
    splits = [[each["name"], each["rows"], min(each["by_class"]), max(each["by_class"])] for each in data["splits"]]
    return markup.table(["", ""], facts) + markup.table(
        ["split", "rows", "fewest of a class", "most of a class"], splits
    )


def _rates(factor: float) -> str:
    return (
        "those of the training" if factor == 1 else f"{factor:g} times those of the training, tuned before calibration"
    )


def _answers(numbers: Numbers) -> str:
    lines = []
    for name, answer in numbers["answers"].items():
        for when in ("before", "after"):
            known = answer[when]
            cells = [markup.interval(known["accuracy"], percent=True)]
            cells += [markup.interval(known[figure]) for figure in ("nll", "brier", "ece", "adaptive_ece", "aurc")]
            lines.append([name, f"{when} temperature", *cells])
    return markup.table(["answer", "", "accuracy", "NLL (nats)", "Brier", "ECE", "adaptive ECE", "AURC"], lines)


def _coverage(numbers: Numbers) -> str:
    names = list(numbers["answers"])
    curves = [numbers["answers"][name]["risk_coverage"] for name in names]
    lines = [
        [f"{points[0]['coverage']:.0%}", *(f"{each['risk']:.2%}" for each in points)]
        for points in zip(*curves, strict=True)
    ]
    return markup.table(["coverage", *(f"errors, {name}" for name in names)], lines)


def _by_class(numbers: Numbers) -> str:
    classes, rates = numbers["model"]["classes"], numbers["promise"]["by_class"]

    def accuracy(index: int) -> float:
        figures = numbers["answers"][MC]["by_class"][index]["figures"]
        return 2.0 if figures is None else float(figures["accuracy"]["value"])

    order = [*range(len(classes))]
    more = f"<p>The {CLASSES} of {len(classes)} classes with the lowest accuracy; all are in report.json.</p>"
    if len(order) > CLASSES:
        order = sorted(order, key=accuracy)[:CLASSES]
    text = more if len(classes) > CLASSES else ""
    for name, answer in numbers["answers"].items():
        lines = []
        for index in order:
            each = answer["by_class"][index]
            if each["figures"] is None:
                lines.append([classes[index], 0, "no test rows", "", "", "", ""])
                continue
            cells = [markup.interval(each["figures"][figure], short=True) for figure in ("nll", "ece", "brier")]
            cells = [markup.interval(each["figures"]["accuracy"], percent=True), *cells, markup.rate(rates[index])]
            lines.append([classes[index], each["rows"], *cells])
        text += f"<h3>{escape(name)}</h3>"
        text += markup.table(["class", "rows", "accuracy", "NLL (nats)", "ECE", "Brier", "flagged"], lines)
    return text


def _promise(promise: Numbers) -> str:
    drawn = promise["resplits"]
    kept = (
        "at least 1%, so it is consistent with the promise"
        if promise["consistent"]
        else "below 1%, which REFUTES it; are test and calibration rows alike?"
    )
    law = "as often as its law says" if drawn["consistent"] else "less often than its law says"
    return (
        f"<p>Promised: at most {promise['alpha']:.1%} of inputs like the {promise['calibration_rows']} calibration "
        f"rows are flagged, with confidence {1 - promise['delta']:.0%} over the draw of these rows. An input is "
        f"flagged if its p-value is at or below {promise['level']:.4f}.</p>"
        f"<p>Measured: {markup.rate(promise['measured'])} of the test rows. By the exact law, Beta-binomial, so many "
        f"or more are flagged with probability {promise['chance']:.2%}. {markup.verdict(promise['consistent'])}: that "
        f"is {kept}.</p>"
        f"<p>Over {drawn['count']} divisions of the held-out rows into {drawn['calibration_rows']} to calibrate on and "
        f"{drawn['measured_rows']} to measure, {drawn['mean_rate']:.2%} were flagged on average, and at most "
        f"{promise['alpha']:.1%} in {markup.rate(drawn['within'])} of the divisions. By the exact law, "
        f"Beta-binomial, it is {drawn['due']:.1%}: the measured rows scatter too. So few or fewer divisions then "
        f"have a chance of {drawn['chance']:.2%} (binomial; below 1% would refute it). "
        f"{markup.verdict(drawn['consistent'])}: the promise is kept {law}. The divisions mix calibration and test "
        "rows, so this tests the procedure; whether these rows are alike, the measured rate above does.</p>"
    )


def _out_of_distribution(others: Sequence[Numbers]) -> str:
    lines = [
        [each["name"], markup.rate(each["flagged"]), f"{each['auroc']:.4f}", f"{each['fpr95']:.2%}"] for each in others
    ]
    return markup.table(["strangers", "flagged", "AUROC", "test rows flagged where 95% of them are caught"], lines)


def _settling(settled: Sequence[Numbers]) -> str:
    lines = [[each["members"], f"{each['mean']:.4f}", f"{each['std']:.4f}"] for each in settled]
    return markup.table(["members", "distance of the mean", "distance of the std"], lines)


def _corruptions(corrupted: Sequence[Numbers]) -> str:
    lines = [
        [
            each["name"],
            each["severity"],
            *(f"{value:.1%}" for value in each["accuracy"].values()),
            f"{each['predictive_entropy']:.3f}",
            markup.rate(each["flagged"]),
        ]
        for each in corrupted
    ]
    names = [f"accuracy, {name}" for name in corrupted[0]["accuracy"]] if corrupted else []
    return markup.table(["damage", "severity", *names, "predictive entropy (nats)", "flagged"], lines)


def _examples(examples: Sequence[Numbers]) -> str:
    lines = [
        [
            index,
            each["row"],
            each["at"],
            each["shown"],
            each["label"],
            f"{each['answer']} ({each['probability']:.0%})",
            f"{each['predictive_entropy']:.3f}",
            f"{each['p_value']:.4f}",
            "yes" if each["flagged"] else "no",
        ]
        for index, each in enumerate(examples, start=1)
    ]
    names = ["", "test row", "in the source", "input", "is", f"answer, {MC}", "predictive entropy (nats)", "p-value"]
    return markup.table([*names, "flagged"], lines)


def _monitoring(monitoring: Numbers) -> str:
    lines = [
        [
            f"{each['out_of_distribution']:.0%}",
            f"{each['flagged']:.1%}",
            "more than 2000" if each["median_inputs"] is None else f"{each['median_inputs']:.0f}",
        ]
        for each in monitoring["delays"]
    ]
    return (
        f"<p>An e-process on the flags with alpha = {monitoring['alpha']:g} and epsilon = {monitoring['epsilon']:g} "
        f"raises the alarm when its e-value reaches {monitoring['alarm_at']:g}; a false alarm ever has probability "
        "epsilon + delta at most. Simulated for the strangers that are flagged least often here:</p>"
        + markup.table(["strangers among the inputs", "flagged", "inputs until the alarm (median)"], lines)
        + markup.listing(monitoring["advice"])
    )


def _requirements(requirements: Sequence[Numbers]) -> str:
    lines = [[each["figure"], f"{each['relation']} {each['bound']:.4g}", each["because"]] for each in requirements]
    return (
        "<p>On the same test rows, which neither version may have seen. Of two versions that are as good as each "
        "other, one falls behind the other by less than a standard error in most cases, for they err on the same rows; "
        "so one is what each figure may lose:</p>" + markup.table(["figure", "must be", "why"], lines)
    )


def _rules(rules: Sequence[Numbers]) -> str:
    lines = [[each["number"], each["article_13"], each["article_15"], each["change_plan"]] for each in rules]
    names = ["number", "AI Act, article 13", "AI Act, article 15", "predetermined change control plan (FDA)"]
    return (
        "<p>This says where a number of this report may stand in such documents. It is no legal advice, and no number "
        "fulfils a law by itself.</p>" + markup.table(names, lines)
    )
