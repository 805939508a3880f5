"""List the items of two reporting guidelines, with the fact of a report that each asks for.

- CLAIM 2024: Tejani AS, Klontz ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM):
  2024 Update. Radiology: Artificial Intelligence 2024;6(4):e240300.
- TRIPOD+AI: Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement. BMJ 2024;385:e078378.

The names of the items are shortened; the guidelines have their whole text.
"""

from __future__ import annotations

from dataclasses import dataclass

CLAIM_SOURCE = (
    "CLAIM 2024: Tejani AS, Klontz ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging "
    "(CLAIM): 2024 Update. Radiology: Artificial Intelligence 2024;6(4):e240300. doi:10.1148/ryai.240300."
)
TRIPOD_SOURCE = (
    "TRIPOD+AI: Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical "
    "prediction models that use regression or machine learning methods. BMJ 2024;385:e078378. "
    "doi:10.1136/bmj-2023-078378."
)

JACKKNIFE_SOURCE = (
    "Jackknife: Tukey JW. Bias and confidence in not-quite large samples (abstract). Annals of Mathematical Statistics "
    "1958;29:614."
)


@dataclass(frozen=True)
class Item:
    """An item of a guideline.

    Attributes
    ----------
    number : as in the guideline: ``12a``.
    name : a short name.
    fact : the fact that answers it, as a key of `ensemble.report.method.method.facts_for_items`; "" if only the authors
        can.
    """

    number: str
    name: str
    fact: str = ""


CLAIM = (
    Item("1", "Title: AI methodology and its kind"),
    Item("2", "Abstract: design, methods, results, conclusions"),
    Item("3", "Background, intended use and role"),
    Item("4", "Aims, objectives, hypotheses"),
    Item("5", "Prospective or retrospective"),
    Item("6", "Study goal"),
    Item("7", "Data sources"),
    Item("8", "Inclusion and exclusion criteria"),
    Item("9", "Data preprocessing", "preprocessing"),
    Item("10", "Selection of data subsets", "changed"),
    Item("11", "De-identification"),
    Item("12", "Handling of missing data", "missing"),
    Item("13", "Image acquisition protocol", "sizes"),
    Item("14", "Definition of the reference standard", "reference"),
    Item("15", "Rationale for the reference standard"),
    Item("16", "Source of the annotations"),
    Item("17", "Annotation of the test set"),
    Item("18", "Variability of the annotators", "doubts"),
    Item("19", "Assignment of data to partitions", "assignment"),
    Item("20", "Level at which partitions are disjoint", "unit"),
    Item("21", "Intended sample size", "size"),
    Item("22", "Description of the model", "models"),
    Item("23", "Software libraries and packages", "software"),
    Item("24", "Initialization of the parameters", "initialization"),
    Item("25", "Training approach", "training"),
    Item("26", "Selection of the final model", "selection"),
    Item("27", "Ensembling", "ensembling"),
    Item("28", "Metrics of performance", "metrics"),
    Item("29", "Significance and uncertainty", "intervals"),
    Item("30", "Robustness or sensitivity analysis", "robustness"),
    Item("31", "Explainability or interpretability", "explainability"),
    Item("32", "Evaluation on internal data", "internal"),
    Item("33", "Testing on external data", "external"),
    Item("34", "Clinical trial registration"),
    Item("35", "Patients or examinations included and excluded", "counts"),
    Item("36", "Characteristics of the cases in each partition", "characteristics"),
    Item("37", "Performance with uncertainty", "scores"),
    Item("38", "Diagnostic performance and its precision", "classes"),
    Item("39", "Failure analysis of wrong cases", "failures"),
    Item("40", "Limitations", "limitations"),
    Item("41", "Implications for practice"),
    Item("42", "Study protocol or technical details"),
    Item("43", "Availability of software, model, data"),
    Item("44", "Funding and role of funders"),
)

TRIPOD = (
    Item("1", "Title"),
    Item("2", "Abstract"),
    Item("3a", "Healthcare context and rationale"),
    Item("3b", "Target population, purpose, users"),
    Item("3c", "Health inequalities"),
    Item("4", "Objectives"),
    Item("5a", "Sources of the data"),
    Item("5b", "Dates of the data"),
    Item("6a", "Setting, number and location of sites"),
    Item("6b", "Eligibility criteria"),
    Item("6c", "Treatments"),
    Item("7", "Data preparation", "preprocessing"),
    Item("8a", "Outcome: definition and assessment", "reference"),
    Item("8b", "Outcome: qualifications of assessors"),
    Item("8c", "Outcome: blinding"),
    Item("9a", "Predictors: choice", "predictors"),
    Item("9b", "Predictors: definition and measurement", "sizes"),
    Item("9c", "Predictors: assessors"),
    Item("10", "Sample size", "size"),
    Item("11", "Missing data", "missing"),
    Item("12a", "Use and partition of the data", "partition"),
    Item("12b", "Handling of predictors", "preprocessing"),
    Item("12c", "Type of model, building, internal validation", "building"),
    Item("12d", "Heterogeneity across clusters", "clusters"),
    Item("12e", "Measures and plots of performance", "metrics"),
    Item("12f", "Model updating", "updating"),
    Item("12g", "Calculation of the predictions", "prediction"),
    Item("13", "Class imbalance", "imbalance"),
    Item("14", "Fairness", "fairness"),
    Item("15", "Model output", "output"),
    Item("16", "Training versus evaluation data", "external"),
    Item("17", "Ethical approval"),
    Item("18a", "Funding"),
    Item("18b", "Conflicts of interest"),
    Item("18c", "Protocol"),
    Item("18d", "Registration"),
    Item("18e", "Data sharing"),
    Item("18f", "Code sharing"),
    Item("19", "Patient and public involvement"),
    Item("20a", "Flow of participants", "counts"),
    Item("20b", "Characteristics of participants", "characteristics"),
    Item("20c", "Comparison with the development data", "characteristics"),
    Item("21", "Participants and events in each analysis", "counts"),
    Item("22", "Specification of the model", "specification"),
    Item("23a", "Performance with intervals, also in subgroups", "scores"),
    Item("23b", "Heterogeneity of performance across clusters", "clusters"),
    Item("24", "Results of model updating", "updating"),
    Item("25", "Interpretation"),
    Item("26", "Limitations", "limitations"),
    Item("27a", "Poor or unavailable input data"),
    Item("27b", "Interaction and expertise of users"),
    Item("27c", "Next steps"),
)
