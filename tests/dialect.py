"""The words of the old private dialect and the names of the old glossary, for the tests of docs/ and of the code."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping

# Words of the old dialect → what to write.
DIALECT = {
    r"honest\w*": "nested, unbiased, leakage-free",
    r"believ\w+": "report, use",
    r"flatter\w*": "optimistic, inflates",
    r"hopeless": "unpromising",
    r"distinguish\w+": "significant",
    r"learnt": "fitted, trained",
    r"too good by": "optimism",
    r"built-in people|drawn people": "synthetic faces",
    r"the whole road": "the full pipeline",
    r"tells? the truth|told the truth": "agrees with the test score",
    r"the truth": "the true value, the test score",
    r"by heart": "memorize",
    r"a word|with a word": "reported",
    r"the program (?:says|knows|thinks)": "is printed, is reported",
    r"nobody": "no person, none",
    r"whoever|whosoever": "if you",
    r"(?:normal|recogn|optim|minim|equal|regular|memor)is(?:e|es|ed|ing|ation)": "American spelling: -ize",
    r"colours?|favours?|neighbours?|behaviour|centre|grey": "American spelling",
    r"95 %": "95%",
}
# Further words of the code.
DIALECT_OF_CODE = DIALECT | {
    r"begun": "started",
    r"told": "reported, given",
    r"luck": "random variation",
    r"pass(?:es|ed)? over|passing over": "skipped",
    r"so many": "the number",
    r"(?:go|goes|going|gone|went) on": "continue",
    r"labelled|unlabelled": "American spelling: labeled",
}
# Quoted values and file names are not prose.
_QUOTED = re.compile(r"`[^`]*`|\]\([^)]*\)")

# Old names of functions, classes, parameters, attributes and variables → what to use. Names that are plain English for
# something else in the code (`share`, `place`, `expected`) are not among them.
OLD_NAMES = {
    "claimed": "in_sample",
    "honest": "out_of_sample",
    "nests": "outer_folds",
    "nests_of": "outer_fold_ids",
    "distinguishable": "is_significant",
    "is_real": "is_significant",
    "freedom": "dof",
    "freedom_of": "degrees_of_freedom",
    "_weighed": "_effective_sample_size",
    "_as_people_may_be": "_clip_to_clopper_pearson",
    "_HELD": "_EMPIRICAL_COVERAGE",
    "center_and_scale": "jackknife_groups",
    "redrawn": "bootstrap_scores",
    "RESAMPLES": "N_RESAMPLES",
    "ENOUGH": "a MIN_… name",
    "FEWEST": "a MIN_… name",
    "person_codes": "factorize",
    "codes_of": "factorize",
    "tally": "crosstab",
    "class_counts": "confusion_counts",
    "log_losses": "per_row_log_loss",
    "squared_errors": "per_row_brier",
    "of_counts": "from_counts",
    "of_rows": "per_row",
    "of_ranks": "rank_based",
    "over_classes": "macro_averaged",
    "headline": "interval",
    "mixed_people": "people_with_several_labels",
    "truth_of": "labels_and_groups",
    "Sidecar": "PredictionMetadata",
    "Rows": "SampleRows",
    "Meaning": "ClassAttributes",
    "Opened": "LoadedData",
    "reopen_data": "load_checkpoint_data",
    "draw_people": "generate_people",
    "Drawing": "SyntheticSpec",
    "People": "GroupCounts",
    "people_of": "count_groups",
    "greedy_folds": "stratified_group_kfold",
    "BEGINNINGS": "RESTARTS",
    "_shake": "_perturb",
    "likeness": "max_rand_index",
    "fold_table": "fold_counts",
    "Unreadable": "UnreadableImageError",
    "in_threads": "map_threads",
    "Pictures": "AuditImages",
    "Sibling": "SmallVariant",
    "SMALL_SIBLINGS": "SMALL_VARIANTS",
    "Joined": "MultiHeadModel",
    "anywhere": "with_absolute_paths",
    "Learner": "TrainingState",
    "summed": "loss_sum",
    "StateFile": "StateWriter",
    "_without_hope": "_should_stop_early",
    "_Statistics": "_BatchNormSnapshot",
    "put_back": "restore",
    "log_rest": "log1m_prob",
    "check_choices": "validate_recipe",
    "doubtful_choices": "recipe_warnings",
    "Sampling": "SamplerConfig",
    "Epochs": "EpochSampler",
    "Held": "LockedJobs",
    "Room": "ResourceWatch",
    "Journal": "ProgressWriter",
    "Listener": "ProgressReader",
    "Heard": "StudyCallbacks",
    "_Heard": "ProgressMonitor",
    "Beginning": "InitialWeights",
    "_look_for_seen": "_check_leakage",
    "Recorded": "RecordedResources",
    "Asked": "RequestedRecipe",
    "make_plan": "build_plan",
    "open_runs": "prepare_jobs",
    "publish": "write_predictions",
    "varied": "changed",
    "controlled": "unchanged",
    "state_intent": "save_hypothesis",
    "stated_after": "folds_trained_when_stated",
    "Listed": "RunListing",
    "Tuning": "Study",
    "make_tuning": "make_study",
    "begun": "started",
    "tidy": "clean_up",
    "honest_score": "score_on_other_folds",
    "longest_of": "max_epochs_of",
    "told": "report_contributions",
    "told_method": "method_params",
    "heard": "active_runs",
    "_unheard": "_uncovered_error",
    "torn": "people_in_several_folds",
    "learnt": "fitted",
    "vote_as_learnt": "apply_combination",
    "said": "summary, messages",
    "Worth": "Contributions",
    "Worths": "ContributionReport",
    "MemberWorth": "RunContribution",
    "nobody": "empty",
    "everybody": "full",
    "looked_at": "evaluated",
    "Ballots": "VoteInput",
    "COOLEST": "MIN_TEMPERATURE",
    "HOTTEST": "MAX_TEMPERATURE",
    "remembered": "memoize_fit",
    "Evidence": "OOFViews",
    "FoldViews": "FoldPredictor",
    "kept_logits": "load_cached_logits",
    "moves_only": "geometric_only",
    "TRUTH": "BOOL",
    "wrong_fields": "validate_fields",
    "let_go": "release_pages",
    "result_array": "allocate_result",
    "remove_leftovers": "remove_stale_temporaries",
}
_REFUSE = re.compile(r"_*refuse_\w+")


def dialect(text: str, words: Mapping[str, str] = DIALECT) -> list[str]:
    """Return the words of the old dialect in a text, each with what to write instead."""
    text = _QUOTED.sub("", text)
    return [
        f"{found[0]} → {better}"
        for pattern, better in words.items()
        for found in re.finditer(rf"\b(?:{pattern})(?!\w)", text, flags=re.IGNORECASE)
    ]


def old_names(source: str) -> list[str]:
    """Return the old names that a module defines, each with its line and what to use: ``3: begun → started``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for name in _defined(node):
            better = "check_…" if _REFUSE.fullmatch(name) else OLD_NAMES.get(name)
            if better is not None:
                found.append((node.lineno, f"{node.lineno}: {name} → {better}"))  # type: ignore[attr-defined]
    return [text for _, text in sorted(found)]


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr


def dialect_of_code(source: str, allowed: Mapping[str, str] | None = None) -> list[str]:
    """Return the words of the old dialect in the comments, docstrings and other strings of a module, each with its line.

    Parameters
    ----------
    allowed : string that may stand in the code → why. Only a string that is nothing else is allowed, e.g. a key.
    """
    found = []
    # From Python 3.12 on, the texts between the fields of an f-string are tokens of their own.
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds and token.string.strip("\"'") not in (allowed or {}):
            found += [f"{token.start[0]}: {word}" for word in dialect(token.string, DIALECT_OF_CODE)]
    return found
