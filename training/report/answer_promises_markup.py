"""What is promised about accepted answers and label sets and what was measured, as parts of the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from dubio.training.report import markup
from dubio.training.report.markup import Numbers

CONFIDENCES = {
    "mc_probability": "the members' mean probability",
    "mc_margin": "the margin of the members' mean probability",
    "probability": "the deterministic probability",
    "least_probability": "the smaller of both probabilities",
}
WHOM = {"all": "inputs", "class": "inputs of each class", "predicted": "inputs of each predicted class"}


def acceptances(acceptances: Sequence[Numbers]) -> str:
    """Each promised risk with what was measured, or why there is no promise."""
    if not acceptances:
        return "<p>This checkpoint promises nothing about accepted answers.</p>"
    first = (
        "<p>An answer is accepted if it is not flagged, both labels name the same class and its confidence reaches a "
        "threshold. The promise is one about accepted answers to inputs like the calibration rows, over all classes "
        "together; it holds for both labels.</p>"
    )
    return first + "".join(map(_acceptance, acceptances))


def _acceptance(each: Numbers) -> str:
    risk, sure = f"{each['risk']:.1%}", f"{1 - each['delta']:.0%}"
    if each["reason"]:
        return (
            f"<p>At a risk of {risk}: <strong>no promise</strong> ({escape(each['reason'].replace('_', ' '))}). The "
            f"{each['calibration_rows']} calibration rows cannot show with confidence {sure} that accepted answers err "
            f"so seldom, so no answer is accepted at this risk. What would help: "
            f"{escape(each['advice'].replace('`', ''))}.</p>"
        )
    text = (
        f"<p>Promised: at most {risk} of the accepted answers are wrong, with confidence {sure} over the draw of the "
        f"{each['calibration_rows']} calibration rows. {_threshold(each)}</p><p>Measured: "
        f"{markup.rate(each['accepted'])} of the test rows are "
        "accepted"
    )
    if each["wrong"] is None:
        return f"{text}, so that there are no errors to count.</p>"
    kept = "is consistent with it" if each["consistent"] else "REFUTES it; are test and calibration rows alike?"
    text += (
        f", and of these are wrong {markup.rate(each['wrong'])}. {markup.verdict(each['consistent'])}: that {kept}.</p>"
    )
    drawn = each["resplits"]
    if drawn is None:
        return f"{text}<p>No resplits: {escape(each['no_resplits'])}.</p>"
    law = "no more often than" if drawn["consistent"] else "more often than"
    text += (
        f"<p>Over {drawn['count']} divisions of the held-out rows into {drawn['calibration_rows']} to calibrate on and "
        f"{drawn['measured_rows']} to measure, the rule errs more than promised on all held-out rows in "
        f"{markup.rate(drawn['broken'])}. By the exact law it is at most {each['delta']:.0%}, and then so many or more "
        f"have a chance of {drawn['chance']:.2%} (binomial). {markup.verdict(drawn['consistent'])}, for that is "
        f"{'not ' if drawn['consistent'] else ''}below 1%: the promise is broken {law} the law allows."
    )
    if drawn["within"] is not None and drawn["mean_wrong"] is not None:
        text += (
            f" There was a promise in {drawn['promised']} divisions. Over all divisions {drawn['mean_accepted']:.1%} "
            f"of the measured rows were accepted, {drawn['mean_wrong']:.2%} of these were wrong, and at most {risk} in "
            f"{markup.rate(drawn['within'])} of the divisions with a promise; the measured rows scatter too."
        )
    return f"{text}</p>"


def _threshold(each: Numbers) -> str:
    if each["threshold"] < 0:
        return "Any confidence is enough: what is not flagged and has two equal labels is accepted."
    return f"The confidence is {CONFIDENCES[each['confidence']]}, of at least {each['threshold']:.4f}."


def label_sets(sets: Numbers | None, classes: Sequence[str]) -> str:
    """The promised coverage with what was measured, the sizes, and the coverage class by class."""
    if sets is None:
        return "<p>This checkpoint promises no label sets.</p>"
    text = (
        f"<p>Promised: the label sets ({escape(sets['score'].upper())}) of at least {sets['coverage']:.1%} of "
        f"{WHOM[sets['by']]} like the {sets['calibration_rows']} calibration rows contain the true class, over the "
        "draw of calibration rows and inputs together.</p>"
    )
    if sets["unbounded"]:
        which = markup.some(sets["unbounded"])
        text += f"<p>There are too few calibration rows of {escape(which)}: those sets hold every class.</p>"
    text += (
        f"<p>Measured: {markup.rate(sets['covered'])} of the test rows, {sets['mean_size']:.2f} classes on average. "
    )
    kept = "is consistent with it" if sets["consistent"] else "REFUTES it; are test and calibration rows alike?"
    if sets["chance"] is not None:
        text += (
            f"By the exact law, Beta-binomial, so many or more are missed with probability {sets['chance']:.2%}; below "
            "1% would refute the promise. "
        )
    text += f"{markup.verdict(sets['consistent'])}: that {kept}.</p>"
    drawn = sets["resplits"]
    if drawn is None:
        text += f"<p>No resplits: {escape(sets['no_resplits'])}.</p>"
    else:
        law = "as often as its law says" if drawn["consistent"] else "less often than its law says"
        text += (
            f"<p>Over {drawn['count']} divisions of the held-out rows {1 - drawn['mean_rate']:.2%} were covered on "
            f"average, and at least {sets['coverage']:.1%} in {markup.rate(drawn['within'])} of the divisions; by the "
            f"exact law it is {drawn['due']:.1%}, for the promise is one on average, and then so few or fewer have a "
            f"chance of {drawn['chance']:.2%} (binomial; below 1% would refute it). "
            f"{markup.verdict(drawn['consistent'])}: the promise is kept {law}. (The most probable class, which is in "
            "every set, is not added here: the law is of sets without it.)</p>"
        )
    sizes = [[size, rows] for size, rows in enumerate(sets["sizes"], start=1) if rows]
    by_class = [
        [name, markup.rate(each)] for name, each in zip(classes, sets["by_class"], strict=True) if each is not None
    ]
    return text + markup.table(["classes in the set", "test rows"], sizes) + _covered(by_class)


def _covered(by_class: Sequence[Sequence[str]]) -> str:
    shown = by_class[:50]
    more = f"<p>The first {len(shown)} of {len(by_class)} classes; all are in report.json.</p>"
    return (more if len(shown) < len(by_class) else "") + markup.table(["class", "covered"], shown)
