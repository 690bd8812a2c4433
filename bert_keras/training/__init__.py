"""Encoder and tasks to a trained model."""

from bert_keras.training.budget import TimeBudget, budget_seconds
from bert_keras.training.comparison import Comparison, ComparisonRow, compare_pretraining
from bert_keras.training.doctor import Doctor, diagnose
from bert_keras.training.evaluation import evaluate_model
from bert_keras.training.feed import TaskFeed, encoder_arrays, training_arrays
from bert_keras.training.loading import load_model
from bert_keras.training.model import MultiTaskModel
from bert_keras.training.muon import Muon
from bert_keras.training.optimizers import ProgressDecay, WarmupDecay, create_optimizer
from bert_keras.training.prediction import LabelPrediction, SpanPrediction, WordPrediction, predict
from bert_keras.training.recipes import RECIPES, Recipe, create_recipe
from bert_keras.training.symptoms import Finding
from bert_keras.training.train import train_model
from bert_keras.training.vocabulary import extend_vocabulary

__all__ = [
    "Comparison",
    "ComparisonRow",
    "Doctor",
    "Finding",
    "LabelPrediction",
    "MultiTaskModel",
    "Muon",
    "ProgressDecay",
    "RECIPES",
    "Recipe",
    "SpanPrediction",
    "TaskFeed",
    "TimeBudget",
    "WarmupDecay",
    "WordPrediction",
    "budget_seconds",
    "compare_pretraining",
    "create_optimizer",
    "create_recipe",
    "diagnose",
    "encoder_arrays",
    "evaluate_model",
    "extend_vocabulary",
    "load_model",
    "predict",
    "train_model",
    "training_arrays",
]
