"""Variants: names, keys, the control, and shares that add up."""

from collections.abc import Sequence
from typing import Any

from assay.bucketing.ruleset import Status
from assay.catalog.database import WriteTx
from assay.catalog.documents import percent
from assay.catalog.editing import changing, state_forbids
from assay.catalog.inputs import MAX_VARIANTS, SHARES, VariantInput
from assay.catalog.keying import free, slug
from assay.catalog.tables import Experiment, Variant
from assay.errors import Conflict, FieldError, Invalid

_SUM_TOLERANCE = 1e-6


def made(given: Sequence[VariantInput]) -> list[Variant]:
    """The variants of a new experiment; without any, one `control` that gets everybody."""
    given = given or [VariantInput(name="control", allocation=1.0)]
    shares = settled_shares(given)
    control = _control_among(given)
    titles = _titles(given)
    keys = _keys(given, titles, set())
    return [
        _variant(each, titles[at], keys[at], shares[at], position=at, is_control=at == control)
        for at, each in enumerate(given)
    ]


def replace(experiment: Experiment, given: Sequence[VariantInput]) -> None:
    """Make the variants those `given`: matched by id, key or name; the rest is removed, new ones are made.

    For use inside `changing`.
    """
    if not given:
        raise Invalid.field("variants", "must not be empty; an experiment needs a control")
    titles = _titles(given)
    present = [each for each in experiment.variants if not each.removed]
    matched = [_match(present, each, at) for at, each in enumerate(given)]
    kept = [each.id for each in matched if each is not None]
    if len(set(kept)) != len(kept):
        raise Invalid.field("variants", "names the same variant twice")
    removed = [each for each in present if each.id not in kept]
    shares = _replaced_shares(given, matched, removed)
    control = _control_after(experiment, given, matched, removed)
    for each in removed:
        _take_away(experiment, each)
    fresh = [at for at, each in enumerate(matched) if each is None]
    keys = _keys(
        [given[at] for at in fresh],
        [titles[at] for at in fresh],
        {each.key for each in experiment.variants},
    )
    new_keys = dict(zip(fresh, keys, strict=True))
    for at, (wanted, row) in enumerate(zip(given, matched, strict=True)):
        if row is None:
            _refuse_old_name(experiment, titles[at], f"variants[{at}].name")
            made_now = _variant(
                wanted, titles[at], new_keys[at], shares[at], position=at, is_control=at == control
            )
            experiment.variants.append(made_now)
        else:
            _apply(row, wanted, shares[at], experiment, f"variants[{at}].")
            row.position = at
            row.is_control = at == control


def add(tx: WriteTx, experiment: Experiment, given: VariantInput) -> Variant:
    """One more variant; its share must still be free, and is none unless given."""
    present = [each for each in experiment.variants if not each.removed]
    if len(present) >= MAX_VARIANTS:
        raise Invalid.field("variants", f"an experiment has at most {MAX_VARIANTS}", code="too_many_variants")
    if given.title is None:
        raise Invalid.field("name", "is required")
    _refuse_old_name(experiment, given.title, "name")
    _at_most_everybody(present, None, given)
    key = _keys([given], [given.title], {each.key for each in experiment.variants})[0]
    position = max((each.position for each in experiment.variants), default=-1) + 1
    with changing(tx, experiment, "variant.add"):
        row = _variant(given, given.title, key, given.share or 0.0, position=position, is_control=False)
        experiment.variants.append(row)
        if given.is_control:
            _move_control(experiment, row)
    return row


def edit(tx: WriteTx, experiment: Experiment, row: Variant, given: VariantInput) -> None:
    """Change one variant. Its share may shrink, which leaves traffic free, or grow into what is free."""
    if given.reference is not None and given.reference != row.id:
        raise Invalid.field("id", f"is {row.id} and cannot be changed; got {given.reference}")
    share = given.share
    _at_most_everybody([each for each in experiment.variants if not each.removed], row, given)
    with changing(tx, experiment, "variant.edit"):
        _apply(row, given, row.allocation if share is None else share, experiment, "")
        if given.is_control and not row.is_control:
            _move_control(experiment, row)
        elif given.is_control is False and row.is_control:
            raise Invalid.field("is_control", "say is_control: true on the variant that is to be the control")


def remove(tx: WriteTx, experiment: Experiment, row: Variant) -> None:
    """Take a variant out. Its share stays free; who has it gets the control's payload from now on."""
    with changing(tx, experiment, "variant.remove"):
        if row.is_control and experiment.status == Status.DRAFT:
            _pass_control_on(experiment, row)
        _take_away(experiment, row)


def settled_shares(given: Sequence[VariantInput]) -> list[float]:
    """The shares of variants given together: equal if none is written, else all must be and sum to 1."""
    shares = [each.share for each in given]
    if all(share is None for share in shares):
        return [1 / len(given)] * len(given)
    errors = [
        FieldError(f"variants[{at}].allocation", "is required, because other variants have one")
        for at, share in enumerate(shares)
        if share is None
    ]
    if errors:
        raise Invalid(f"{errors[0].path}: {errors[0].message}", errors=errors)
    settled = [share for share in shares if share is not None]
    total = sum(settled)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise _bad_sum(total, given[0], "variants", "must sum to")
    return settled


def _replaced_shares(
    given: Sequence[VariantInput], matched: Sequence[Variant | None], removed: Sequence[Variant]
) -> list[float]:
    """The shares of a list that replaces another; as before, if none is written and nobody comes or goes."""
    known = [row for row in matched if row is not None]
    if not known or any(each.share is not None for each in given):
        return settled_shares(given)
    if removed or len(known) < len(given):
        raise Invalid.field("variants[0].allocation", "is required, because variants are added or removed")
    return [row.allocation for row in known]


def _bad_sum(total: float, given: VariantInput, path: str, demand: str) -> Invalid:
    """The sum found, in the unit the caller writes."""
    if SHARES[given.spelling] == 1:
        message = f"{given.spelling} {demand} 1; it sums to {total:.10g}"
    else:
        message = f"{given.spelling} {demand} 100; it sums to {percent(total):.10g}"
    return Invalid.field(path, message, code="allocation_sum")


def _at_most_everybody(present: Sequence[Variant], row: Variant | None, given: VariantInput) -> None:
    share = given.share
    if share is None:
        return
    total = share + sum(each.allocation for each in present if each is not row)
    if total > 1 + _SUM_TOLERANCE:
        raise _bad_sum(total, given, given.spelling, "of all variants must not sum to more than")


def _control_among(given: Sequence[VariantInput]) -> int:
    """The position of the control: the one that says so, or is called `control`, or comes first."""
    declared = [at for at, each in enumerate(given) if each.is_control]
    if len(declared) > 1:
        raise Invalid.field(f"variants[{declared[1]}].is_control", "only one variant can be the control")
    if declared:
        return declared[0]
    open_to_it = [at for at, each in enumerate(given) if each.is_control is None]
    if not open_to_it:
        raise Invalid.field("variants", "one variant must be the control; each says it is not")
    named = [at for at in open_to_it if (given[at].title or "").casefold() == "control"]
    return (named or open_to_it)[0]


def _control_after(
    experiment: Experiment,
    given: Sequence[VariantInput],
    matched: Sequence[Variant | None],
    removed: Sequence[Variant],
) -> int:
    """The position of the control once the list is replaced: it stays where it is unless moved."""
    declared = any(each.is_control for each in given)
    current = next((at for at, row in enumerate(matched) if row is not None and row.is_control), None)
    if experiment.status != Status.DRAFT and any(each.is_control for each in removed):
        raise state_forbids(experiment, "its control cannot be removed")
    stays = current is not None and given[current].is_control is None and not declared
    chosen = current if current is not None and stays else _control_among(given)
    if experiment.status != Status.DRAFT and chosen != current:
        raise state_forbids(experiment, "its control cannot be changed")
    return chosen


def _move_control(experiment: Experiment, row: Variant) -> None:
    if experiment.status != Status.DRAFT:
        raise state_forbids(experiment, "its control cannot be changed")
    for each in experiment.variants:
        each.is_control = each is row


def _take_away(experiment: Experiment, row: Variant) -> None:
    """Delete the variant of a draft; mark that of a started experiment as removed, because people have it."""
    if row.is_control and experiment.status != Status.DRAFT:
        raise state_forbids(experiment, "its control cannot be removed")
    if experiment.status == Status.DRAFT:
        experiment.variants.remove(row)
        return
    row.removed = True
    row.enabled = False
    row.allocation = 0.0


def _pass_control_on(experiment: Experiment, row: Variant) -> None:
    others = [each for each in experiment.variants if each is not row]
    if not others:
        raise Conflict(
            "The last variant cannot be removed: an experiment needs a control.", code="last_variant"
        )
    others[0].is_control = True


def _match(present: Sequence[Variant], given: VariantInput, at: int) -> Variant | None:
    if given.reference is not None:
        for row in present:
            if row.id == given.reference:
                return row
        raise Invalid.field(f"variants[{at}].id", f"this experiment has no variant {given.reference}")
    for row in present:
        if given.key == row.key or (given.key is None and given.title == row.name):
            return row
    return None


def _titles(given: Sequence[VariantInput]) -> list[str]:
    """The names, where missing made from the key; each once."""
    titles: list[str] = []
    for at, each in enumerate(given):
        title = each.title or each.key
        if title is None and each.reference is None:
            raise Invalid.field(f"variants[{at}].name", "is required")
        if title is not None and title in titles:
            raise Invalid.field(f"variants[{at}].name", f"is used twice: {title}", code="duplicate_name")
        titles.append(title or "")
    return titles


def _keys(given: Sequence[VariantInput], titles: Sequence[str], taken: set[str]) -> list[str]:
    taken = set(taken)
    for each in given:
        if each.key is not None:
            if each.key in taken:
                raise Conflict(f"The variant key {each.key} is taken.", code="key_taken")
            taken.add(each.key)
    keys = []
    for each, title in zip(given, titles, strict=True):
        key = each.key or free(slug(title, "variant"), taken.__contains__)
        taken.add(key)
        keys.append(key)
    return keys


def _refuse_old_name(experiment: Experiment, title: str, path: str) -> None:
    """Names tell variants apart in reports, so a removed variant keeps its name, too."""
    for each in experiment.variants:
        if each.name == title:
            was = (
                "belonged to a variant that was removed and is still reported" if each.removed else "is taken"
            )
            raise Conflict(
                f"The variant name {title!r} {was}.", code="name_taken", errors=[FieldError(path, was)]
            )


def _variant(
    given: VariantInput, title: str, key: str, share: float, *, position: int, is_control: bool
) -> Variant:
    return Variant(
        key=key,
        name=title,
        description=given.description,
        allocation=share,
        enabled=given.enabled,
        is_control=is_control,
        config=given.payload or {},
        position=position,
        removed=False,
    )


def _apply(row: Variant, given: VariantInput, share: float, experiment: Experiment, path: str) -> None:
    changes: dict[str, Any] = {"allocation": share}
    if given.title is not None and given.title != row.name:
        others = [each for each in experiment.variants if each is not row]
        if any(each.name == given.title for each in others):
            raise Conflict(
                f"The variant name {given.title!r} is taken.",
                code="name_taken",
                errors=[FieldError(f"{path}name", "is taken")],
            )
        changes["name"] = given.title
    if given.key is not None and given.key != row.key:
        raise Invalid.field(f"{path}key", f"is {row.key} and cannot be changed; got {given.key}")
    if given.payload is not None:
        changes["config"] = given.payload
    for name in ("description", "enabled"):
        if given.given(name):
            changes[name] = getattr(given, name)
    for name, value in changes.items():
        setattr(row, name, value)
