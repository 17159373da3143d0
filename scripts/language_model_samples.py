"""Judges the images that a language model of pixels draws, as `smt-hf evaluate --reference_split` judges a student's.

python scripts/language_model_samples.py runs/lm --dataset mnist.npz --split validation --holdout 20

The language model is one that `smt-hf lm` or an `lm` stage of `smt-hf compare` has trained on images with classes.
"""

import argparse
import json

import torch
from transformers import AutoModelForCausalLM

from smt_hf.data import ImageRows, cached_images, load_processing
from smt_hf.evaluation.image_quality import evaluate_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--reference_split", default="train")
    parser.add_argument("--holdout", type=int)
    parser.add_argument("--num_images", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = AutoModelForCausalLM.from_pretrained(arguments.model).eval(), load_processing(arguments.model)
    rows = [
        ImageRows(cached_images(arguments.dataset, processor, split=split, holdout=arguments.holdout))
        for split in (arguments.reference_split, arguments.split)
    ]
    print(json.dumps(evaluate_samples(model, processor, *rows, num_images=arguments.num_images), indent=1))


if __name__ == "__main__":
    main()
