"""Methods text ("boilerplate"), built from the steps that were run and their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bids_qsm import __version__
from bids_qsm.report.record import ReferenceRecord, StepRecord
from bids_qsm.report.references import REFERENCES, cited_keys

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Settings": ("preset",),
    "Field map": ("coils", "phase", "offset", "unwrapping", "field"),
    "Masks": ("brain", "mask"),
    "Susceptibility": ("background", "inversion", "artefact_reduction", "reference", "uncertainty"),
    "Relaxometry": ("relaxometry",),
    "Separation of sources": ("separation",),
    "Susceptibility-weighted image": ("swi",),
    "Anatomy and regional values": (
        "t1w",
        "registration",
        "template",
        "deep-grey",
        "atlas",
        "veins",
        "regions",
    ),
    "Lesions and morphometry": ("lesions", "enhancement", "tissues", "thickness", "freesurfer"),
    "Clinical steps": (
        "t2w",
        "hybrid",
        "ct",
        "leads",
        "trajectories",
        "paramagnetic",
        "tracking",
        "microbleeds",
        "rims",
    ),
}
"""The headings of the text and the steps below each, in this order whatever was run first."""

METHOD_NAMES: Mapping[str, str] = {
    "arlo": "ARLO",
    "artefact": "by the artefact of their metal",
    "best-path": "the best path",
    "clear": "CLEAR-SWI",
    "compact-sources": "compact sources and the field around them",
    "gre": "from the gradient echo alone",
    "hd-qsm": "HD-QSM",
    "hysteresis": "two thresholds of susceptibility",
    "ilsqr": "iLSQR",
    "ismv": "iSMV",
    "joint": "joint fit",
    "l2": "squared-gradient penalty",
    "labels": "by labels",
    "lbv": "LBV",
    "linear": "linear fit",
    "loglinear": "log-linear fit",
    "mcpc3ds": "MCPC-3D-S",
    "medi": "MEDI",
    "ndi": "NDI",
    "nltv": "non-linear total variation",
    "nonlinear": "non-linear fit",
    "pdf": "PDF",
    "r2prime": "with R2'",
    "resharp": "RESHARP",
    "romeo": "ROMEO",
    "rts": "RTS",
    "same-region": "in the same region",
    "sharp": "SHARP",
    "shells": "shells along the border",
    "tgv": "total generalised variation",
    "tikhonov": "Tikhonov regularisation",
    "tkd": "thresholded k-space division",
    "tv": "total variation",
    "vsharp": "V-SHARP",
}
"""The registry's names as they are read; others are read as they are."""

STEP_NAMES: Mapping[str, str] = {
    "preset": "Preset",
    "coils": "Combination of coils",
    "phase": "Reading of the phase",
    "offset": "Removal of phase offsets",
    "unwrapping": "Phase unwrapping",
    "field": "Field estimation",
    "brain": "Brain extraction",
    "mask": "Masking",
    "background": "Background field removal",
    "inversion": "Dipole inversion",
    "artefact_reduction": "Reduction of artefacts",
    "reference": "Referencing",
    "uncertainty": "Standard deviation of susceptibility",
    "relaxometry": "Relaxometry",
    "separation": "Separation of sources",
    "swi": "Susceptibility weighting",
    "t1w": "Preparation of the T1w image",
    "registration": "Registration of the T1w image to the gradient echo",
    "template": "Registration to the template",
    "deep-grey": "Registration of the deep grey matter",
    "atlas": "Labelling",
    "veins": "Veins",
    "regions": "Regional statistics",
    "lesions": "Lesions",
    "enhancement": "Enhancement",
    "tissues": "Tissues",
    "thickness": "Cortical thickness",
    "freesurfer": "FreeSurfer",
    "t2w": "Registration of the T2w image to the T1w image",
    "hybrid": "Hybrid contrast",
    "ct": "Registration of the CT to the T1w image",
    "leads": "Leads",
    "trajectories": "Trajectories",
    "paramagnetic": "Lesions to follow",
    "tracking": "Lesion tracking",
    "microbleeds": "Microbleeds and calcifications",
    "rims": "Paramagnetic rims",
}

WHOLE_BRAIN_SENTENCE = "Susceptibility is relative to the mean over the whole brain."

SENTENCES: Mapping[tuple[str, str], str] = {
    ("coils", "mcpc3ds"): "The images of the single receive coils were combined without a "
    "reference scan, weighted by the coils' sensitivities as found in the first echo "
    "[@eckstein2018; @roemer1990].",
    ("offset", "mcpc3ds"): "Phase offsets of the receive coils were removed with MCPC-3D-S "
    "[@eckstein2018].",
    ("offset", "off"): "Phase offsets were not removed.",
    ("unwrapping", "romeo"): "The phase was unwrapped along paths of best quality with ROMEO "
    "[@dymerska2021].",
    ("unwrapping", "best-path"): "The phase was unwrapped along the best path [@abdulrahman2007].",
    ("unwrapping", "laplacian"): "The phase was unwrapped with the Laplacian method "
    "[@schofield2003].",
    ("field", "nonlinear"): "The total field was estimated from all echoes together by a "
    "non-linear fit to the complex signal, started from a weighted linear fit [@liu2013].",
    ("field", "linear"): "The total field was estimated from all echoes together by a linear fit "
    "to the unwrapped phase, weighted by the squared magnitude.",
    ("field", "weighted-average"): "The total field was estimated as the average over the echoes, "
    "weighted by the signal-to-noise ratio of the phase [@robinson2017].",
    ("brain", "magnitude"): "The brain was found in the magnitude of the gradient echo with a "
    "deformable surface [@smith2002].",
    ("brain", "T1w"): "The brain mask came from the T1w image, with what a deformable "
    "surface in the magnitude of the gradient echo [@smith2002] added within 5 mm.",
    ("brain", "given"): "The brain mask was supplied by the user.",
    ("mask", "brain-and-quality"): "Susceptibility was computed where the brain mask and a mask of "
    "phase quality [@stewart2022] agree, holes filled.",
    ("mask", "brain"): "Susceptibility was computed in the brain mask; phase quality was not used.",
    ("mask", "quality"): "Susceptibility was computed where the quality of the phase is sufficient "
    "[@stewart2022], holes filled.",
    ("background", "pdf"): "The background field was removed by projection onto dipole fields "
    "[@liu2011].",
    ("background", "joint"): "The background field was removed by a joint fit of free sources "
    "outside and sparse-edged sources inside the brain, on a coarse grid and then on a fine one "
    "[@chatnuntawech2017; @liu2017].",
    ("background", "sharp"): "The background field was removed with spherical means of one radius "
    "and a truncated deconvolution, SHARP [@schweser2011].",
    ("background", "resharp"): "The background field was removed with spherical means of one "
    "radius, undone by regularised least squares, RESHARP [@sun2014].",
    ("background", "ismv"): "The background field was found as the field that equals its spherical "
    "means, iSMV [@wen2014].",
    ("background", "lbv"): "The background field was found as the solution of Laplace's equation "
    "with the total field's boundary values, LBV [@zhou2014].",
    ("background", "none"): "The background field was not removed before the inversion.",
    ("background", "vsharp"): "The background field was removed with spherical means of varying "
    "radius, V-SHARP [@schweser2011; @wu2012].",
    ("inversion", "tv"): "The local field was inverted with a total-variation penalty by the "
    "alternating direction method of multipliers [@bilgic2014].",
    ("inversion", "tkd"): "The local field was inverted by thresholded k-space division, "
    "corrected for what the threshold removes [@schweser2013; @shmueli2009].",
    (
        "inversion",
        "l2",
    ): "The local field was inverted in closed form with a penalty on the "
    "squared gradient [@bilgic2014].",
    ("inversion", "tikhonov"): "The local field was inverted in closed form with Tikhonov "
    "regularisation, corrected for what it removes [@bilgic2014; @schweser2013].",
    (
        "inversion",
        "ilsqr",
    ): "The local field was inverted by least squares, and streaking "
    "artefacts were estimated and removed, iLSQR [@li2015].",
    (
        "inversion",
        "ndi",
    ): "The local field was inverted by non-linear dipole inversion, "
    "regularised by stopping early, NDI [@polak2020].",
    ("inversion", "rts"): "The local field was inverted in two steps: well-conditioned frequencies "
    "by least squares, the others with a total-variation penalty, RTS [@kames2018].",
    ("inversion", "hd-qsm"): "The local field was inverted with a total-variation penalty, misfits "
    "counting by their size first and by their square then, HD-QSM [@lambert2022; @milovic2022].",
    ("inversion", "medi"): "The local field was inverted with a penalty on the gradient, "
    "morphology-enabled, MEDI [@liu2012].",
    ("inversion", "nltv"): "The local field was inverted with a total-variation penalty, complex "
    "signals being compared rather than fields [@milovic2018].",
    ("inversion", "tgv"): "The local field was inverted with a penalty of total generalised "
    "variation, which favours linear pieces [@bredies2010; @langkammer2015].",
    ("artefact_reduction", "off"): "No second pass was made to reduce streaks.",
    ("artefact_reduction", "two-pass"): "Background removal and inversion were done a second time "
    "without the voxels of unreliable phase, which alone kept their values of the first, to reduce "
    "streaks [@stewart2022].",
    ("reference", "none"): "Susceptibility was not referenced: its zero is arbitrary.",
    ("reference", "auto"): "Susceptibility is relative to the cerebrospinal fluid of the lateral "
    "ventricles where these are labelled, else to the mean over the whole brain.",
    ("reference", "whole brain"): WHOLE_BRAIN_SENTENCE,
    ("reference", "whole-brain"): WHOLE_BRAIN_SENTENCE,
    ("relaxometry", "arlo"): "R2* was estimated by auto-regression on linear operations, ARLO "
    "[@pei2015].",
    ("relaxometry", "loglinear"): "R2* was estimated by a weighted straight-line fit to the "
    "logarithm of the magnitude.",
    ("relaxometry", "nonlinear"): "R2* was estimated by a non-linear least-squares fit of an "
    "exponential to the magnitude with the noise floor of magnitude images in mind "
    "[@gudbjartsson1995].",
    ("separation", "gre"): "Paramagnetic and diamagnetic susceptibility were separated from the "
    "gradient echo alone, with R2' taken for a fixed share of R2* [@chen2021; @dimov2022; "
    "@shin2021]; this is experimental.",
    ("separation", "r2prime"): "Paramagnetic and diamagnetic susceptibility were separated with "
    "R2', the difference of R2* and a measured R2 [@chen2021; @shin2021]; this is experimental.",
    ("uncertainty", "replay"): "The standard deviation of susceptibility is that among replays of "
    "background removal, inversion and referencing with noise added to the total field, drawn from "
    "its noise map [@robson2008], averaged over a neighbourhood; it holds the noise of the field "
    "and no other error.",
    ("lesions", "flair-and-t1w"): "T2 lesions were found in the FLAIR image, brought to the T1w "
    "image, as white matter brighter than the tissue expected there, and grown to their edges "
    "(after [@schmidt2012]).",
    ("lesions", "seed-and-grow"): "T2 lesions were grown in the FLAIR image from points that the "
    "user gave.",
    ("lesions", "given"): "The mask of T2 lesions was supplied by the user.",
    ("enhancement", "difference"): "Enhancing lesions were found as the rise of the T1-weighted "
    "signal after contrast agent, in and beside T2 lesions.",
    ("tissues", "mixture"): "Grey matter, white matter and fluid were parted by a mixture of pure "
    "and mixed tissues in the T1w image, nuclei and lesions by their labels; volumes are also "
    "given divided by the size of the head, the determinant of the affine to the template "
    "(after [@buckner2004]).",
    ("thickness", "direct"): "Cortical thickness was measured with DiReCT [@das2009].",
    ("freesurfer", "given"): "FreeSurfer's volumes and thickness were supplied by the user.",
    ("paramagnetic", "hysteresis"): "Strongly paramagnetic lesions were found as compact regions "
    "of high susceptibility that lie neither at the edge of the mask nor in a nucleus.",
    ("paramagnetic", "given"): "The lesions to be followed were supplied by the user.",
    ("paramagnetic", "off"): "No lesions to be followed were looked for.",
    ("tracking", "same-region"): "Lesions were followed over the sessions of a subject, which were "
    "registered rigidly with ANTs [@tustison2021]; each was measured in all that belongs to it in "
    "any session, so that no session is favoured [@reuter2012], in maps that were not resampled; "
    "a rise of the mean susceptibility from one session to the next is flagged as in "
    "[@zeineddine2018].",
    ("microbleeds", "compact-sources"): "Microbleeds and calcifications were found as compact "
    "sources of susceptibility of either sign, told from vessels and nuclei by their shape and by "
    "the field around them; at the edge of the brain, where a strong source leaves no signal, by "
    "the field alone. Their total susceptibility [@liumicrobleeds2012] does not depend on the echo "
    "time as their apparent size does; a dipole fitted to the field outside the signal void (after "
    "[@mcauley2011]) gives it, too. Their confidence was calibrated on simulated heads. Places "
    "follow the rating scale MARS [@gregoire2009].",
    ("rims", "shells"): "Each T2 lesion was scored for a paramagnetic rim [@absinta2016; "
    "@bagnato2024] by the susceptibility of a shell along its border against that of its core and "
    "of what surrounds it, and by the share of directions in which the shell is brighter.",
    ("t2w", "rigid"): "The T2w image was registered rigidly to the T1w image with ANTs "
    "[@tustison2021].",
    ("hybrid", "optimal"): "A hybrid contrast, the T1w image plus weighted susceptibility, was "
    "made for the globus pallidus interna [@wei2019], whose contrast-to-noise ratio against "
    "the tissues around it (the one that it stands out from least) is highest with this weight.",
    ("hybrid", "fixed"): "A hybrid contrast, the T1w image plus susceptibility with a weight of "
    "the user's, was made for the globus pallidus interna [@wei2019].",
    ("ct", "rigid"): "The CT was registered rigidly to the T1w image with ANTs [@tustison2021], by "
    "mutual information of its brain window.",
    ("leads", "artefact"): "Leads were found in the CT by the artefact of their metal: curves "
    "through the bright centres of its cross-sections (after [@husch2018]), whose lower "
    "end is where a row of blurred contacts explains the image best. The radial error to a target "
    "is that of [@rasouli2018].",
    ("trajectories", "labels"): "Trajectories of the user's were followed through susceptibility, "
    "which was not resampled but along the line, and through the structures' probabilities; the "
    "uncertainty of spans is that among lines shifted, and borders moved, at random.",
    ("veins", "vesselness"): "Veins were found by their shape at several scales, their width and "
    "their R2* [@frangi1998]; regional values are stated with and without them.",
    ("veins", "off"): "Veins were not left out of regional values.",
    ("swi", "clear"): "Susceptibility-weighted images were made of the phase and magnitude of all "
    "echoes after CLEAR-SWI [@eckstein2021], and projected as minimum intensity over a sliding "
    "slab.",
    ("swi", "classic"): "Susceptibility-weighted images were made of one echo and its "
    "homodyne-filtered phase [@haacke2004], and projected as minimum intensity over a sliding "
    "slab.",
}
"""What is said of a method; others are named."""

OPTION_SENTENCES: Mapping[tuple[str, str], str] = {
    ("background", "polynomial_order"): "A polynomial of the order {value} was then subtracted.",
    ("inversion", "csf_weight"): "Variation within ventricular fluid, found by its low R2*, was "
    "penalised [@liu2018].",
    ("inversion", "edge_fraction"): "The strongest edges of the magnitude were free of the penalty "
    "[@liu2012].",
    ("inversion", "background_price"): "Sources outside the mask, whose edges cost {value} of what "
    "those within cost, and a polynomial could explain what background removal had left "
    "[@liu2017].",
    ("inversion", "merit"): "Voxels that the model could not explain were given less weight "
    "[@liu2013].",
    ("inversion", "nonlinear"): "Complex signals were compared rather than fields [@liu2013].",
    ("inversion", "smv_radius_mm"): "Spherical means were taken off both the field and the model.",
    ("atlas", "fused_heads"): "The labels of its {value} heads were fused [@wang2013].",
    ("offset", "bipolar"): "Odd and even echoes, of opposite read-out, had offsets of their own.",
    ("relaxometry", "gradient_correction"): "What the field's gradients take from the signal was "
    "accounted for [@fernandezseara2000; @hernando2012].",
    ("unwrapping", "whole_turns"): "It was then brought to whole turns from the measured phase.",
}
"""What is said besides where an option is set: true, or above zero."""

STEP_SENTENCES: Mapping[str, str] = {
    "preset": "Methods and options started from the preset `{method}`.",
    "reference": "Susceptibility is relative to the mean over this region: {method}.",
    "t1w": "The T1w image was corrected for intensity non-uniformity with N4 [@tustison2010] and "
    "its brain extracted, using ANTs [@tustison2021] ({method}).",
    "registration": "The T1w image and the gradient echo were aligned with ANTs [@tustison2021] "
    "({method}).",
    "template": "The T1w image was registered to the template MNI152NLin2009cAsym [@fonov2011] "
    "with symmetric normalisation [@avants2008] ({method}).",
    "deep-grey": "The deep grey matter was registered anew by the contrasts that are named, in "
    "symmetric normalisation [@avants2008] ({method}).",
    "atlas": "Structures were labelled with the atlas {method}, whose registered labels were "
    "fitted to the images and carried into the space of the gradient echo; maps were not resampled "
    "to measure them.",
    "regions": "Values were summarised for each structure ({method}).",
}
"""What is said of a step whatever its method."""


def methods_text(
    steps: Sequence[StepRecord],
    *,
    version: str = __version__,
    reference: ReferenceRecord | None = None,
) -> str:
    """Return the methods text and its references in Markdown.

    Parameters
    ----------
    steps : sequence of StepRecord
        Those that were run, or would be.
    version : str
    reference : ReferenceRecord, optional
        Adds the reference region's values.
    """
    body = methods_body(steps, version=version, reference=reference)
    listed = "\n".join(
        f"- [@{key}]: {REFERENCES[key].text} doi:{REFERENCES[key].doi}" for key in cited_keys(body)
    )
    return f"{body}\n\n## References\n\n{listed}\n"


def methods_body(
    steps: Sequence[StepRecord],
    *,
    version: str = __version__,
    reference: ReferenceRecord | None = None,
) -> str:
    """Return the methods text without its references: ``##`` headings and paragraphs."""
    parts = [
        f"Data in the Brain Imaging Data Structure [@gorgolewski2016] were processed with bids_qsm "
        f"{version}, after the recommendations of the consensus on quantitative susceptibility "
        "mapping [@bilgic2024]."
    ]
    listed = {name for names in SECTIONS.values() for name in names}
    sections = {**SECTIONS, "Further steps": tuple(s.name for s in steps if s.name not in listed)}
    for heading, names in sections.items():
        order = {name: place for place, name in enumerate(names)}
        chosen = sorted((s for s in steps if s.name in order), key=lambda s: order[s.name])
        if chosen:
            sentences = " ".join(_sentence(step, reference) for step in chosen)
            parts.append(f"## {heading}\n\n{sentences}")
    return "\n\n".join(parts)


def parameter_texts(parameters: Mapping[str, Any]) -> list[str]:
    """Return each parameter as ``name = value``."""
    return [f"{name} = {_value(value)}" for name, value in parameters.items()]


def method_name(name: str) -> str:
    """Return the name of a method as it is read."""
    return METHOD_NAMES.get(name, name)


def step_name(name: str) -> str:
    """Return the name of a step as it is read."""
    return STEP_NAMES.get(name, name.replace("_", " ").capitalize())


def _sentence(step: StepRecord, reference: ReferenceRecord | None) -> str:
    method = _plain(step.method)
    sentence = SENTENCES.get((step.name, step.method))
    if sentence is None:
        general = f"{step_name(step.name)} used the method {{method}}."
        sentence = STEP_SENTENCES.get(step.name, general).replace("{method}", method)
    sentence += "".join(
        f" {OPTION_SENTENCES[step.name, option]}".replace("{value}", str(value))
        for option, value in step.parameters.items()
        if (step.name, option) in OPTION_SENTENCES and value > 0
    )
    if step.name == "reference" and reference is not None and sentence != WHOLE_BRAIN_SENTENCE:
        sentence += (
            f" Relative to the whole brain, the reference region ({_plain(reference.region)}) is "
            f"at {1000 * reference.mean_ppm:.1f} ± {1000 * reference.sd_ppm:.1f} ppb (mean ± SD, "
            f"{reference.n_voxels} voxels)."
        )
    parameters = ", ".join(f"`{_plain(text)}`" for text in parameter_texts(step.parameters))
    return f"{sentence} Parameters: {parameters}." if parameters else sentence


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "(" + ", ".join(_value(part) for part in value) + ")"
    return str(value)


def _plain(text: str) -> str:
    """Return a text from outside without what Markdown would take for code or a new line."""
    return " ".join(text.replace("`", "'").split())
