"""The papers that the group level's methods cite."""

from __future__ import annotations

from collections.abc import Mapping

from bids_qsm.report.references import Reference

GROUP_REFERENCES: Mapping[str, Reference] = {
    "benjamini1995": Reference(
        "Benjamini Y, Hochberg Y",
        1995,
        "Controlling the false discovery rate: a practical and powerful approach to multiple "
        "testing",
        "Journal of the Royal Statistical Society B 57:289-300",
        "10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "bland1999": Reference(
        "Bland JM, Altman DG",
        1999,
        "Measuring agreement in method comparison studies",
        "Statistical Methods in Medical Research 8:135-160",
        "10.1177/096228029900800204",
    ),
    "cerioli2010": Reference(
        "Cerioli A",
        2010,
        "Multivariate outlier detection with high-breakdown estimators",
        "Journal of the American Statistical Association 105:147-156",
        "10.1198/jasa.2009.tm09147",
    ),
    "friston1994": Reference(
        "Friston KJ, Worsley KJ, Frackowiak RSJ, Mazziotta JC, Evans AC",
        1994,
        "Assessing the significance of focal activations using their spatial extent",
        "Human Brain Mapping 1:210-220",
        "10.1002/hbm.460010306",
    ),
    "greenhouse1959": Reference(
        "Greenhouse SW, Geisser S",
        1959,
        "On methods in the analysis of profile data",
        "Psychometrika 24:95-112",
        "10.1007/BF02289823",
    ),
    "hayasaka2004": Reference(
        "Hayasaka S, Phan KL, Liberzon I, Worsley KJ, Nichols TE",
        2004,
        "Nonstationary cluster-size inference with random field and permutation methods",
        "NeuroImage 22:676-687",
        "10.1016/j.neuroimage.2004.01.041",
    ),
    "hedges1981": Reference(
        "Hedges LV",
        1981,
        "Distribution theory for Glass's estimator of effect size and related estimators",
        "Journal of Educational Statistics 6:107-128",
        "10.3102/10769986006002107",
    ),
    "holm1979": Reference(
        "Holm S",
        1979,
        "A simple sequentially rejective multiple test procedure",
        "Scandinavian Journal of Statistics 6:65-70",
        "",
    ),
    "hubert2005": Reference(
        "Hubert M, Rousseeuw PJ, Vanden Branden K",
        2005,
        "ROBPCA: a new approach to robust principal component analysis",
        "Technometrics 47:64-79",
        "10.1198/004017004000000563",
    ),
    "hubert2012": Reference(
        "Hubert M, Rousseeuw PJ, Verdonck T",
        2012,
        "A deterministic algorithm for robust location and scatter",
        "Journal of Computational and Graphical Statistics 21:618-637",
        "10.1080/10618600.2012.672100",
    ),
    "locantore1999": Reference(
        "Locantore N, Marron JS, Simpson DG, Tripoli N, Zhang JT, Cohen KL",
        1999,
        "Robust principal component analysis for functional data",
        "Test 8:1-73",
        "10.1007/BF02595862",
    ),
    "mcgraw1996": Reference(
        "McGraw KO, Wong SP",
        1996,
        "Forming inferences about some intraclass correlation coefficients",
        "Psychological Methods 1:30-46",
        "10.1037/1082-989X.1.1.30",
    ),
    "passing1983": Reference(
        "Passing H, Bablok W",
        1983,
        "A new biometrical procedure for testing the equality of measurements from two different "
        "analytical methods",
        "Journal of Clinical Chemistry and Clinical Biochemistry 21:709-720",
        "10.1515/cclm.1983.21.11.709",
    ),
    "rousseeuw1993": Reference(
        "Rousseeuw PJ, Croux C",
        1993,
        "Alternatives to the median absolute deviation",
        "Journal of the American Statistical Association 88:1273-1283",
        "10.1080/01621459.1993.10476408",
    ),
    "smith2009": Reference(
        "Smith SM, Nichols TE",
        2009,
        "Threshold-free cluster enhancement: addressing problems of smoothing, threshold "
        "dependence and localisation in cluster inference",
        "NeuroImage 44:83-98",
        "10.1016/j.neuroimage.2008.03.061",
    ),
    "welch1947": Reference(
        "Welch BL",
        1947,
        "The generalization of 'Student's' problem when several different population variances "
        "are involved",
        "Biometrika 34:28-35",
        "10.1093/biomet/34.1-2.28",
    ),
    "winkler2014": Reference(
        "Winkler AM, Ridgway GR, Webster MA, Smith SM, Nichols TE",
        2014,
        "Permutation inference for the general linear model",
        "NeuroImage 92:381-397",
        "10.1016/j.neuroimage.2014.01.060",
    ),
    "worsley1996": Reference(
        "Worsley KJ, Marrett S, Neelin P, Vandal AC, Friston KJ, Evans AC",
        1996,
        "A unified statistical approach for determining significant signals in images of cerebral "
        "activation",
        "Human Brain Mapping 4:58-73",
        "10.1002/(SICI)1097-0193(1996)4:1<58::AID-HBM4>3.0.CO;2-O",
    ),
    "worsley1999": Reference(
        "Worsley KJ, Andermann M, Koulis T, MacDonald D, Evans AC",
        1999,
        "Detecting changes in nonisotropic images",
        "Human Brain Mapping 8:98-101",
        "10.1002/(SICI)1097-0193(1999)8:2/3<98::AID-HBM5>3.0.CO;2-F",
    ),
}
