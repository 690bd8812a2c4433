"""Encoder and tasks to a trained model."""

from bert_keras.training.adapting import TrainedShare, add_lora, freeze, merge_lora, trained_share, unfreeze
from bert_keras.training.budget import TimeBudget, budget_seconds
from bert_keras.training.comparison import Comparison, ComparisonRow, compare_pretraining
from bert_keras.training.doctor import Doctor, diagnose
from bert_keras.training.evaluation import evaluate_model
from bert_keras.training.feed import TaskFeed, encoder_arrays, training_arrays
from bert_keras.training.layer_rates import AdamW
from bert_keras.training.loading import load_model
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.muon import Muon
from bert_keras.training.optimizers import ProgressDecay, WarmupDecay, create_optimizer
from bert_keras.training.prediction import LabelPrediction, SpanPrediction, WordPrediction, predict
from bert_keras.training.quantizing import QuantizedSize, quantize
from bert_keras.training.recipes import RECIPES, Recipe, create_recipe
from bert_keras.training.symptoms import Finding
from bert_keras.training.train import train_model
from bert_keras.training.unfreezing import GradualUnfreezing
from bert_keras.training.vocabulary import extend_vocabulary

__all__ = [
    "AdamW",
    "Comparison",
    "ComparisonRow",
    "Doctor",
    "Finding",
    "GradualUnfreezing",
    "LabelPrediction",
    "MultiTaskModel",
    "Muon",
    "ProgressDecay",
    "QuantizedSize",
    "RECIPES",
    "Recipe",
    "SpanPrediction",
    "TaskFeed",
    "TimeBudget",
    "TrainedShare",
    "WarmupDecay",
    "WordPrediction",
    "add_lora",
    "budget_seconds",
    "compare_pretraining",
    "create_optimizer",
    "create_recipe",
    "diagnose",
    "encoder_arrays",
    "evaluate_model",
    "extend_vocabulary",
    "freeze",
    "load_model",
    "merge_lora",
    "predict",
    "quantize",
    "train_model",
    "trained_share",
    "training_arrays",
    "unfreeze",
]
