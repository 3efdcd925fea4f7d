"""The words that the questions are made of."""
# ruff: noqa: SIM905 (long lists of words read better without quotes)

NAMES = (
    "Nora Hugo Greta Emil Clara Oscar Alma Felix Ida Jonas Mabel Otto Rosa Simon Thea Victor "
    "Wanda Leo Hilda Bruno"
).split()
FOODS = (
    "apples pears plums lemons eggs buns walnuts carrots onions figs cherries biscuits beans "
    "tomatoes peaches"
).split()
WORDS = (
    "apple bottle candle window river garden pencil mirror button carpet feather hammer ladder "
    "kettle basket blanket bridge camera castle chimney cousin desert dragon engine flower forest "
    "guitar helmet island jacket kitten lemon market needle ocean orange parrot pepper pillow "
    "planet pocket rabbit ribbon saddle sailor shadow silver spider stone summer teacher thunder "
    "ticket tiger tunnel turtle umbrella valley violin wagon whistle winter yellow zebra"
).split()
OBJECTS = "umbrella spoon violin scarf hammer lantern torch trumpet teapot whistle".split()
PLACES = (
    "kitchen cellar garage attic bathroom barn greenhouse hallway bedroom wardrobe cupboard "
    "suitcase oven fridge bathtub rucksack wheelbarrow laundry pantry stable"
).split()
