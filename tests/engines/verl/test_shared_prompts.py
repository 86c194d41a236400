"""Which rows answer the same prompt: told by tokens and patches, after a way through verl's containers."""

import torch
from verl.utils import tensordict_utils

from prism_trainer.engines.verl.shared_prompts import number_prompts, prompts_of


def a_row(ids, image=None):
    images = {} if image is None else {"pixel_values": torch.full((4, 6), image), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    return {"prompts": torch.tensor(ids), "responses": torch.tensor([7]), "multi_modal_inputs": images}


def numbers(*rows):
    return number_prompts(prompts_of(tensordict_utils.list_of_dict_to_tensordict(list(rows))))


def test_rows_of_a_prompt_share_a_number_in_whatever_order_they_come():
    assert numbers(a_row([1, 2], 0.5), a_row([3]), a_row([1, 2], 0.5), a_row([3]), a_row([4, 5, 6], 0.5)) == [0, 1, 0, 1, 2]


def test_the_same_question_about_another_image_or_none_is_another_prompt():
    assert numbers(a_row([1, 2], 0.5), a_row([1, 2], 0.25), a_row([1, 2]), a_row([1, 2], 0.5)) == [0, 1, 2, 0]


def test_the_same_patches_in_another_shape_are_another_image():
    turned = a_row([1, 2], 0.5)
    turned["multi_modal_inputs"]["image_grid_thw"] = torch.tensor([[1, 4, 1]])
    assert numbers(a_row([1, 2], 0.5), turned) == [0, 1]


def test_prompts_of_one_length_are_told_apart_too():
    assert numbers(a_row([1, 2]), a_row([1, 3]), a_row([1, 2])) == [0, 1, 0]
