"""The papers that methods text cites: one table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CITATION = re.compile(r"\[@([a-z0-9]+(?:; @[a-z0-9]+)*)\]")
"""A citation in methods text: ``[@first2001]`` or ``[@first2001; @second2002]``."""


@dataclass(frozen=True)
class Reference:
    """A paper.

    Attributes
    ----------
    authors : str
    year : int
    title : str
    source : str
        Journal, volume and pages.
    doi : str
    """

    authors: str
    year: int
    title: str
    source: str
    doi: str

    @property
    def short(self) -> str:
        """Authors and year, as in running text."""
        surnames = [author.rsplit(" ", 1)[0] for author in self.authors.split(", ")]
        if len(surnames) > 2:
            return f"{surnames[0]} et al. {self.year}"
        return f"{' and '.join(surnames)} {self.year}"

    @property
    def text(self) -> str:
        """The whole reference but its DOI."""
        return f"{self.authors}. {self.title}. {self.source}, {self.year}."


REFERENCES: Mapping[str, Reference] = {
    "abdulrahman2007": Reference(
        "Abdul-Rahman HS, Gdeisat MA, Burton DR, Lalor MJ, Lilley F, Moore CJ",
        2007,
        "Fast and robust three-dimensional best path phase unwrapping algorithm",
        "Applied Optics 46:6623-6635",
        "10.1364/AO.46.006623",
    ),
    "absinta2016": Reference(
        "Absinta M, Sati P, Schindler M, and others",
        2016,
        "Persistent 7-tesla phase rim predicts poor outcome in new multiple sclerosis patient "
        "lesions",
        "Journal of Clinical Investigation 126:2597-2609",
        "10.1172/JCI86198",
    ),
    "avants2008": Reference(
        "Avants BB, Epstein CL, Grossman M, Gee JC",
        2008,
        "Symmetric diffeomorphic image registration with cross-correlation: evaluating automated "
        "labeling of elderly and neurodegenerative brain",
        "Medical Image Analysis 12:26-41",
        "10.1016/j.media.2007.06.004",
    ),
    "bagnato2024": Reference(
        "Bagnato F, Sati P, Hemond CC, and others",
        2024,
        "Imaging chronic active lesions in multiple sclerosis: a consensus statement",
        "Brain 147:2913-2933",
        "10.1093/brain/awae013",
    ),
    "bilgic2014": Reference(
        "Bilgic B, Fan AP, Polimeni JR, Cauley SF, Bianciardi M, Adalsteinsson E, Wald LL, "
        "Setsompop K",
        2014,
        "Fast quantitative susceptibility mapping with L1-regularization and automatic parameter "
        "selection",
        "Magnetic Resonance in Medicine 72:1444-1459",
        "10.1002/mrm.25029",
    ),
    "bilgic2024": Reference(
        "Bilgic B, Costagli M, Chan KS, and others (QSM Consensus Organization Committee)",
        2024,
        "Recommended implementation of quantitative susceptibility mapping for clinical research "
        "in the brain: a consensus of the ISMRM electro-magnetic tissue properties study group",
        "Magnetic Resonance in Medicine 91:1834-1862",
        "10.1002/mrm.30006",
    ),
    "bredies2010": Reference(
        "Bredies K, Kunisch K, Pock T",
        2010,
        "Total generalized variation",
        "SIAM Journal on Imaging Sciences 3:492-526",
        "10.1137/090769521",
    ),
    "buckner2004": Reference(
        "Buckner RL, Head D, Parker J, and others",
        2004,
        "A unified approach for morphometric and functional data analysis in young, old, and "
        "demented adults using automated atlas-based head size normalization",
        "NeuroImage 23:724-738",
        "10.1016/j.neuroimage.2004.06.018",
    ),
    "chatnuntawech2017": Reference(
        "Chatnuntawech I, McDaniel P, Cauley SF, and others",
        2017,
        "Single-step quantitative susceptibility mapping with variational penalties",
        "NMR in Biomedicine 30:e3570",
        "10.1002/nbm.3570",
    ),
    "chen2021": Reference(
        "Chen J, Gong NJ, Chaim KT, Otaduy MCG, Liu C",
        2021,
        "Decompose quantitative susceptibility mapping (QSM) to sub-voxel diamagnetic and "
        "paramagnetic components based on gradient-echo MRI data",
        "NeuroImage 242:118477",
        "10.1016/j.neuroimage.2021.118477",
    ),
    "das2009": Reference(
        "Das SR, Avants BB, Grossman M, Gee JC",
        2009,
        "Registration based cortical thickness measurement",
        "NeuroImage 45:867-879",
        "10.1016/j.neuroimage.2008.12.016",
    ),
    "desikan2006": Reference(
        "Desikan RS, Ségonne F, Fischl B, and others",
        2006,
        "An automated labeling system for subdividing the human cerebral cortex on MRI scans into "
        "gyral based regions of interest",
        "NeuroImage 31:968-980",
        "10.1016/j.neuroimage.2006.01.021",
    ),
    "dimov2022": Reference(
        "Dimov AV, Nguyen TD, Gillen KM, Marcille M, Spincemaille P, Pitt D, Gauthier SA, Wang Y",
        2022,
        "Susceptibility source separation from gradient echo data using magnitude decay modeling",
        "Journal of Neuroimaging 32:852-859",
        "10.1111/jon.13014",
    ),
    "dymerska2021": Reference(
        "Dymerska B, Eckstein K, Bachrata B, Siow B, Trattnig S, Shmueli K, Robinson SD",
        2021,
        "Phase unwrapping with a rapid opensource minimum spanning tree algorithm (ROMEO)",
        "Magnetic Resonance in Medicine 85:2294-2308",
        "10.1002/mrm.28563",
    ),
    "eckstein2018": Reference(
        "Eckstein K, Dymerska B, Bachrata B, Bogner W, Poljanc K, Trattnig S, Robinson SD",
        2018,
        "Computationally efficient combination of multi-channel phase data from multi-echo "
        "acquisitions (ASPIRE)",
        "Magnetic Resonance in Medicine 79:2996-3006",
        "10.1002/mrm.26963",
    ),
    "eckstein2021": Reference(
        "Eckstein K, Bachrata B, Hangel G, and others",
        2021,
        "Improved susceptibility weighted imaging at ultra-high field using bipolar multi-echo "
        "acquisition and optimized image processing: CLEAR-SWI",
        "NeuroImage 237:118175",
        "10.1016/j.neuroimage.2021.118175",
    ),
    "fernandezseara2000": Reference(
        "Fernandez-Seara MA, Wehrli FW",
        2000,
        "Postprocessing technique to correct for background gradients in image-based R2* "
        "measurements",
        "Magnetic Resonance in Medicine 44:358-366",
        "10.1002/1522-2594(200009)44:3<358::AID-MRM3>3.0.CO;2-I",
    ),
    "fischl2002": Reference(
        "Fischl B, Salat DH, Busa E, and others",
        2002,
        "Whole brain segmentation: automated labeling of neuroanatomical structures in the human "
        "brain",
        "Neuron 33:341-355",
        "10.1016/S0896-6273(02)00569-X",
    ),
    "fonov2011": Reference(
        "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL",
        2011,
        "Unbiased average age-appropriate atlases for pediatric studies",
        "NeuroImage 54:313-327",
        "10.1016/j.neuroimage.2010.07.033",
    ),
    "gorgolewski2016": Reference(
        "Gorgolewski KJ, Auer T, Calhoun VD, and others",
        2016,
        "The brain imaging data structure, a format for organizing and describing outputs of "
        "neuroimaging experiments",
        "Scientific Data 3:160044",
        "10.1038/sdata.2016.44",
    ),
    "gregoire2009": Reference(
        "Gregoire SM, Chaudhary UJ, Brown MM, and others",
        2009,
        "The Microbleed Anatomical Rating Scale (MARS): reliability of a tool to map brain "
        "microbleeds",
        "Neurology 73:1759-1766",
        "10.1212/WNL.0b013e3181c34a7d",
    ),
    "gudbjartsson1995": Reference(
        "Gudbjartsson H, Patz S",
        1995,
        "The Rician distribution of noisy MRI data",
        "Magnetic Resonance in Medicine 34:910-914",
        "10.1002/mrm.1910340618",
    ),
    "frangi1998": Reference(
        "Frangi AF, Niessen WJ, Vincken KL, Viergever MA",
        1998,
        "Multiscale vessel enhancement filtering",
        "Medical Image Computing and Computer-Assisted Intervention, LNCS 1496:130-137",
        "10.1007/BFb0056195",
    ),
    "haacke2004": Reference(
        "Haacke EM, Xu Y, Cheng YCN, Reichenbach JR",
        2004,
        "Susceptibility weighted imaging (SWI)",
        "Magnetic Resonance in Medicine 52:612-618",
        "10.1002/mrm.20198",
    ),
    "hernando2012": Reference(
        "Hernando D, Vigen KK, Shimakawa A, Reeder SB",
        2012,
        "R2* mapping in the presence of macroscopic B0 field variations",
        "Magnetic Resonance in Medicine 68:830-840",
        "10.1002/mrm.23074",
    ),
    "husch2018": Reference(
        "Husch A, V. Petersen M, Gemmar P, Goncalves J, Hertel F",
        2018,
        "PaCER - A fully automated method for electrode trajectory and contact reconstruction in "
        "deep brain stimulation",
        "NeuroImage: Clinical 17:80-89",
        "10.1016/j.nicl.2017.10.004",
    ),
    "kames2018": Reference(
        "Kames C, Wiggermann V, Rauscher A",
        2018,
        "Rapid two-step dipole inversion for susceptibility mapping with sparsity priors",
        "NeuroImage 167:276-283",
        "10.1016/j.neuroimage.2017.11.018",
    ),
    "lambert2022": Reference(
        "Lambert M, Tejos C, Langkammer C, Milovic C",
        2022,
        "Hybrid data fidelity term approach for quantitative susceptibility mapping",
        "Magnetic Resonance in Medicine 88:962-972",
        "10.1002/mrm.29218",
    ),
    "langkammer2015": Reference(
        "Langkammer C, Bredies K, Poser BA, and others",
        2015,
        "Fast quantitative susceptibility mapping using 3D EPI and total generalized variation",
        "NeuroImage 111:622-630",
        "10.1016/j.neuroimage.2015.02.041",
    ),
    "li2015": Reference(
        "Li W, Wang N, Yu F, and others",
        2015,
        "A method for estimating and removing streaking artifacts in quantitative "
        "susceptibility mapping",
        "NeuroImage 108:111-122",
        "10.1016/j.neuroimage.2014.12.043",
    ),
    "liu2011": Reference(
        "Liu T, Khalidov I, de Rochefort L, Spincemaille P, Liu J, Tsiouris AJ, Wang Y",
        2011,
        "A novel background field removal method for MRI using projection onto dipole fields (PDF)",
        "NMR in Biomedicine 24:1129-1136",
        "10.1002/nbm.1670",
    ),
    "liu2012": Reference(
        "Liu J, Liu T, de Rochefort L, and others",
        2012,
        "Morphology enabled dipole inversion for quantitative susceptibility mapping using "
        "structural consistency between the magnitude image and the susceptibility map",
        "NeuroImage 59:2560-2568",
        "10.1016/j.neuroimage.2011.08.082",
    ),
    "liumicrobleeds2012": Reference(
        "Liu T, Surapaneni K, Lou M, Cheng L, Spincemaille P, Wang Y",
        2012,
        "Cerebral microbleeds: burden assessment by using quantitative susceptibility mapping",
        "Radiology 262:269-278",
        "10.1148/radiol.11110251",
    ),
    "liu2013": Reference(
        "Liu T, Wisnieff C, Lou M, Chen W, Spincemaille P, Wang Y",
        2013,
        "Nonlinear formulation of the magnetic field to source relationship for robust "
        "quantitative susceptibility mapping",
        "Magnetic Resonance in Medicine 69:467-476",
        "10.1002/mrm.24272",
    ),
    "liu2017": Reference(
        "Liu Z, Kee Y, Zhou D, Wang Y, Spincemaille P",
        2017,
        "Preconditioned total field inversion (TFI) method for quantitative susceptibility mapping",
        "Magnetic Resonance in Medicine 78:303-315",
        "10.1002/mrm.26331",
    ),
    "liu2018": Reference(
        "Liu Z, Spincemaille P, Yao Y, Zhang Y, Wang Y",
        2018,
        "MEDI+0: Morphology enabled dipole inversion with automatic uniform cerebrospinal fluid"
        " zero reference for quantitative susceptibility mapping",
        "Magnetic Resonance in Medicine 79:2795-2803",
        "10.1002/mrm.26946",
    ),
    "mcauley2011": Reference(
        "McAuley G, Schrag M, Barnes S, Obenaus A, Dickson A, Holshouser B, Kirsch W",
        2011,
        "Iron quantification of microbleeds in postmortem brain",
        "Magnetic Resonance in Medicine 65:1592-1601",
        "10.1002/mrm.22745",
    ),
    "milovic2018": Reference(
        "Milovic C, Bilgic B, Zhao B, Acosta-Cabronero J, Tejos C",
        2018,
        "Fast nonlinear susceptibility inversion with variational regularization",
        "Magnetic Resonance in Medicine 80:814-821",
        "10.1002/mrm.27073",
    ),
    "milovic2022": Reference(
        "Milovic C, Lambert M, Langkammer C, Bredies K, Irarrazaval P, Tejos C",
        2022,
        "Streaking artifact suppression of quantitative susceptibility mapping reconstructions "
        "via L1-norm data fidelity optimization (L1-QSM)",
        "Magnetic Resonance in Medicine 87:457-473",
        "10.1002/mrm.28957",
    ),
    "pei2015": Reference(
        "Pei M, Nguyen TD, Thimmappa ND, Salustri C, Dong F, Cooper MA, Li J, Prince MR, Wang Y",
        2015,
        "Algorithm for fast monoexponential fitting based on Auto-Regression on Linear Operations "
        "(ARLO) of data",
        "Magnetic Resonance in Medicine 73:843-850",
        "10.1002/mrm.25137",
    ),
    "polak2020": Reference(
        "Polak D, Chatnuntawech I, Yoon J, and others",
        2020,
        "Nonlinear dipole inversion (NDI) enables robust quantitative susceptibility mapping (QSM)",
        "NMR in Biomedicine 33:e4271",
        "10.1002/nbm.4271",
    ),
    "rasouli2018": Reference(
        "Rasouli J, Ramdhani R, Panov FE, Dimov A, Zhang Y, Cho C, Wang Y, Kopell BH",
        2018,
        "Utilization of quantitative susceptibility mapping for direct targeting of the "
        "subthalamic nucleus during deep brain stimulation surgery",
        "Operative Neurosurgery 14:412-419",
        "10.1093/ons/opx131",
    ),
    "reuter2012": Reference(
        "Reuter M, Schmansky NJ, Rosas HD, Fischl B",
        2012,
        "Within-subject template estimation for unbiased longitudinal image analysis",
        "NeuroImage 61:1402-1418",
        "10.1016/j.neuroimage.2012.02.084",
    ),
    "robinson2017": Reference(
        "Robinson SD, Bredies K, Khabipova D, Dymerska B, Marques JP, Schweser F",
        2017,
        "An illustrated comparison of processing methods for MR phase imaging and QSM: combining "
        "array coil signals and phase unwrapping",
        "NMR in Biomedicine 30:e3601",
        "10.1002/nbm.3601",
    ),
    "robson2008": Reference(
        "Robson PM, Grant AK, Madhuranthakam AJ, Lattanzi R, Sodickson DK, McKenzie CA",
        2008,
        "Comprehensive quantification of signal-to-noise ratio and g-factor for image-based and "
        "k-space-based parallel imaging reconstructions",
        "Magnetic Resonance in Medicine 60:895-907",
        "10.1002/mrm.21728",
    ),
    "roemer1990": Reference(
        "Roemer PB, Edelstein WA, Hayes CE, Souza SP, Mueller OM",
        1990,
        "The NMR phased array",
        "Magnetic Resonance in Medicine 16:192-225",
        "10.1002/mrm.1910160203",
    ),
    "schmidt2012": Reference(
        "Schmidt P, Gaser C, Arsic M, and others",
        2012,
        "An automated tool for detection of FLAIR-hyperintense white-matter lesions in multiple "
        "sclerosis",
        "NeuroImage 59:3774-3783",
        "10.1016/j.neuroimage.2011.11.032",
    ),
    "schofield2003": Reference(
        "Schofield MA, Zhu Y",
        2003,
        "Fast phase unwrapping algorithm for interferometric applications",
        "Optics Letters 28:1194-1196",
        "10.1364/OL.28.001194",
    ),
    "schweser2011": Reference(
        "Schweser F, Deistung A, Lehr BW, Reichenbach JR",
        2011,
        "Quantitative imaging of intrinsic magnetic tissue properties using MRI signal phase: an "
        "approach to in vivo brain iron metabolism?",
        "NeuroImage 54:2789-2807",
        "10.1016/j.neuroimage.2010.10.070",
    ),
    "schweser2013": Reference(
        "Schweser F, Deistung A, Sommer K, Reichenbach JR",
        2013,
        "Toward online reconstruction of quantitative susceptibility maps: superfast dipole "
        "inversion",
        "Magnetic Resonance in Medicine 69:1581-1593",
        "10.1002/mrm.24405",
    ),
    "shin2021": Reference(
        "Shin HG, Lee J, Yun YH, and others",
        2021,
        "χ-separation: Magnetic susceptibility source separation toward iron and myelin mapping "
        "in the brain",
        "NeuroImage 240:118371",
        "10.1016/j.neuroimage.2021.118371",
    ),
    "shmueli2009": Reference(
        "Shmueli K, de Zwart JA, van Gelderen P, Li TQ, Dodd SJ, Duyn JH",
        2009,
        "Magnetic susceptibility mapping of brain tissue in vivo using MRI phase data",
        "Magnetic Resonance in Medicine 62:1510-1522",
        "10.1002/mrm.22135",
    ),
    "smith2002": Reference(
        "Smith SM",
        2002,
        "Fast robust automated brain extraction",
        "Human Brain Mapping 17:143-155",
        "10.1002/hbm.10062",
    ),
    "stewart2022": Reference(
        "Stewart AW, Robinson SD, O'Brien K, and others",
        2022,
        "QSMxT: robust masking and artifact reduction for quantitative susceptibility mapping",
        "Magnetic Resonance in Medicine 87:1289-1300",
        "10.1002/mrm.29048",
    ),
    "sun2014": Reference(
        "Sun H, Wilman AH",
        2014,
        "Background field removal using spherical mean value filtering and Tikhonov regularization",
        "Magnetic Resonance in Medicine 71:1151-1157",
        "10.1002/mrm.24765",
    ),
    "tustison2010": Reference(
        "Tustison NJ, Avants BB, Cook PA, Zheng Y, Egan A, Yushkevich PA, Gee JC",
        2010,
        "N4ITK: improved N3 bias correction",
        "IEEE Transactions on Medical Imaging 29:1310-1320",
        "10.1109/TMI.2010.2046908",
    ),
    "tustison2021": Reference(
        "Tustison NJ, Cook PA, Holbrook AJ, and others",
        2021,
        "The ANTsX ecosystem for quantitative biological and medical imaging",
        "Scientific Reports 11:9068",
        "10.1038/s41598-021-87564-6",
    ),
    "wang2013": Reference(
        "Wang H, Suh JW, Das SR, Pluta JB, Craige C, Yushkevich PA",
        2013,
        "Multi-atlas segmentation with joint label fusion",
        "IEEE Transactions on Pattern Analysis and Machine Intelligence 35:611-623",
        "10.1109/TPAMI.2012.143",
    ),
    "wei2019": Reference(
        "Wei H, Zhang C, Wang T, He N, Li D, Zhang Y, Liu C, Yan F, Sun B",
        2019,
        "Precise targeting of the globus pallidus internus with quantitative susceptibility "
        "mapping for deep brain stimulation surgery",
        "Journal of Neurosurgery 133:1605-1611",
        "10.3171/2019.7.JNS191254",
    ),
    "wen2014": Reference(
        "Wen Y, Zhou D, Liu T, Spincemaille P, Wang Y",
        2014,
        "An iterative spherical mean value method for background field removal in MRI",
        "Magnetic Resonance in Medicine 72:1065-1071",
        "10.1002/mrm.24998",
    ),
    "wu2012": Reference(
        "Wu B, Li W, Guidon A, Liu C",
        2012,
        "Whole brain susceptibility mapping using compressed sensing",
        "Magnetic Resonance in Medicine 67:137-147",
        "10.1002/mrm.23000",
    ),
    "zeineddine2018": Reference(
        "Zeineddine HA, Girard R, Cao Y, Hobson N, Fam MD, Stadnik A, Tan H, Shen J, Chaudagar K, "
        "Shenkar R, Thompson RE, McBee N, Hanley D, Carroll T, Christoforidis GA, Awad IA",
        2018,
        "Quantitative susceptibility mapping as a monitoring biomarker in cerebral cavernous "
        "malformations with recent hemorrhage",
        "Journal of Magnetic Resonance Imaging 47:1133-1138",
        "10.1002/jmri.25831",
    ),
    "zhou2014": Reference(
        "Zhou D, Liu T, Spincemaille P, Wang Y",
        2014,
        "Background field removal by solving the Laplacian boundary value problem",
        "NMR in Biomedicine 27:312-319",
        "10.1002/nbm.3064",
    ),
}


def cited_keys(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in alphabetical order."""
    return sorted({key for found in CITATION.findall(text) for key in found.split("; @")})
