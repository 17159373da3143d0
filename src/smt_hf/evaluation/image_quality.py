"""How good drawn images are, judged by a small classifier that was trained on real ones.

Label agreement says whether a class-conditional sample shows its class; precision and recall (Kynkäänniemi et al., Improved
precision and recall metric for assessing generative models, 2019) whether samples look like real images and whether they cover
their variety; the Fréchet distance (Heusel et al., GANs trained by a two time-scale update rule, 2017) compares means and
covariances. The features are the classifier's, so the numbers can be compared with each other, but not with those of other
papers; real images that were not trained on are the ceiling.
"""

import torch
from torch import nn

from ..data.images import ImageRows, evenly_spaced_images
from ..errors import InputError
from ..images import draw
from ..models.image_processing_smt import SmtImageProcessor

NUM_FEATURES = 32
NEIGHBOURS = 3


class ImageClassifier(nn.Module):
    """A small convolutional network for images `(N, H, W)` with values from 0 to 1."""

    def __init__(self, num_classes: int, large: bool):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2) if large else nn.Identity(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
        )
        self.features = nn.Sequential(nn.Linear(512, NUM_FEATURES), nn.ReLU())
        self.head = nn.Linear(NUM_FEATURES, num_classes)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `(N, num_classes)` and features `(N, 32)`."""
        features = self.features(self.convolutions(images[:, None]))
        return self.head(features), features


def train_classifier(
    images: torch.Tensor, labels: torch.Tensor, num_classes: int, num_steps: int = 1000, seed: int = 0
) -> ImageClassifier:
    """Trains a classifier on real images.

    Args:
        images: `(N, H, W)`, from 0 to 1.
        labels: `(N,)`.
        num_classes: number of classes.
        num_steps: training steps of 64 images each.
        seed: seed of the weights and of the order of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        classifier = ImageClassifier(num_classes, large=max(images.shape[1:]) > 16)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, num_steps)
    for _ in range(num_steps):
        batch = torch.randint(len(images), (64,), generator=generator)
        logits, _ = classifier(images[batch])
        loss = nn.functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


@torch.no_grad()
def evaluate_samples(
    student,
    processor: SmtImageProcessor,
    train: ImageRows,
    validation: ImageRows,
    num_images: int = 500,
    temperature: float = 1.0,
    seed: int = 0,
    classifier_steps: int = 1000,
    guidance: float = 1.0,
) -> dict:
    """Lets a class-conditional student draw, and compares its images with real ones.

    Args:
        student: an `SmtRnnForCausalLM`; without guidance, any causal language model of the processor's ids.
        processor: the image processor that it was trained with; it has classes.
        train: real images that the classifier is trained on, and that samples should look like.
        validation: real images that nothing was trained on: they test the classifier, and are the ceiling.
        num_images: images of each kind to compare; fewer if there are fewer real ones.
        temperature: sampling temperature.
        seed: seed of the classifier and the samples.
        classifier_steps: training steps of the classifier.
        guidance: guidance of the samples, see [`ClassGuidance`]; 1 is none.

    Returns:
        `classifier_accuracy` on the validation images, and for `real` (the validation images) and `samples`:
        `label_agreement`, `precision`, `recall` and `frechet_distance`, each measured against as many training images.

    Raises:
        InputError: for a student without classes.
    """
    if processor.num_classes == 0:
        raise InputError("sample quality is judged by classes, but the student has none: train it with labels")
    num_images = min(num_images, len(train), len(validation))
    with torch.enable_grad():
        classifier = train_classifier(
            *_real(train, len(train), processor), processor.num_classes, classifier_steps, seed
        )
    everything, labels = _real(validation, len(validation), processor)
    accuracy = (classifier(everything)[0].argmax(dim=-1) == labels).float().mean().item()
    reference = classifier(_real(train, num_images, processor)[0])[1]

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        drawn = torch.arange(num_images) % processor.num_classes
        prompts = (drawn + processor.num_levels)[:, None].to(student.device)
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
        pixels = torch.cat([draw(student, processor, part, guidance, **sampling) for part in prompts.split(256)]).cpu()
    report = {"num_images": num_images, "classifier_accuracy": round(accuracy, 4), "temperature": temperature}
    report |= {} if guidance == 1 else {"guidance": guidance}
    for name, (images, wanted) in (
        ("real", _real(validation, num_images, processor)),
        ("samples", (as_images(pixels, processor), drawn)),
    ):
        logits, features = classifier(images)
        precision, recall = precision_recall(reference, features)
        report[name] = {
            "label_agreement": round((logits.argmax(dim=-1) == wanted).float().mean().item(), 4),
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "frechet_distance": round(frechet_distance(reference, features), 4),
        }
    return report


def as_images(pixels: torch.Tensor, processor: SmtImageProcessor) -> torch.Tensor:
    """Pixel ids `(N, H x W)` as images `(N, H, W)` from 0 to 1."""
    return pixels.float().div(processor.num_levels - 1).unflatten(1, (processor.size["height"], -1))


def _real(rows: ImageRows, num_images: int, processor: SmtImageProcessor) -> tuple[torch.Tensor, torch.Tensor]:
    """Real images, evenly spread over a data set, and their labels."""
    ids = evenly_spaced_images(rows, num_images)
    return as_images(ids[:, 1:], processor), ids[:, 0] - processor.num_levels


def frechet_distance(real: torch.Tensor, other: torch.Tensor) -> float:
    """The Fréchet distance of two sets of features `(N, F)`, `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))`."""
    real, other = real.double(), other.double()
    shift = (real.mean(dim=0) - other.mean(dim=0)).square().sum()
    covariances = [torch.cov(features.T) for features in (real, other)]
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # the root of C C' has the trace of the root of C^(1/2) C' C^(1/2), which is symmetric
    cross = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    return (shift + covariances[0].trace() + covariances[1].trace() - 2 * cross).item()


def precision_recall(real: torch.Tensor, other: torch.Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """The share of `other` that lies among `real`, and the share of `real` that lies among `other`.

    A point lies among others if it is as near to one of them as that one's `neighbours`-th neighbour is.
    """
    return _inside(other, real, neighbours), _inside(real, other, neighbours)


def _inside(points: torch.Tensor, others: torch.Tensor, neighbours: int) -> float:
    radii = torch.cdist(others, others).kthvalue(min(neighbours + 1, len(others)), dim=1).values  # one is itself
    return (torch.cdist(points, others) <= radii).any(dim=1).double().mean().item()
