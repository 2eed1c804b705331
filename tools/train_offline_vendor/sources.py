"""Sources of the drawings, exclusions, and the validation set."""

from __future__ import annotations

from tools.train_offline_vendor.names import base
from vl2v.teacher.offline.vocabulary import OUTLINE_ICONS, SOLID_ICONS

NPM = ("@iconify/json", "@lobehub/fluent-emoji-3d", "emoji-datasource-google", "emojilib")
DEBIAN = (
    "openclipart-png", "tuxpaint-stamps-default", "gcompris-qt-data", "wordnet-base", "plasma-workspace-wallpapers",
    "gnome-backgrounds", "mate-backgrounds", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "ukui-wallpapers",
)  # fmt: skip

EMOJI_SETS = (
    "noto", "noto-v1", "twemoji", "emojione", "emojione-v1", "emojione-monotone", "fluent-emoji", "fluent-emoji-flat",
    "fluent-emoji-high-contrast", "fxemoji", "streamline-emojis",
)  # fmt: skip
ICON_SETS = (
    "game-icons", "mdi", "tabler", "ph", "ri", "healthicons", "icon-park", "icon-park-outline", "icon-park-solid",
    "icon-park-twotone", "hugeicons", "streamline", "streamline-color", "streamline-freehand",
    "streamline-freehand-color", "streamline-ultimate", "streamline-ultimate-color", "streamline-plump",
    "streamline-plump-color", "streamline-flex", "streamline-flex-color", "streamline-sharp",
    "streamline-kameleon-color", "streamline-stickies-color", "streamline-cyber", "streamline-pixel",
    "streamline-block", "maki", "temaki", "pinhead", "roentgen", "covid", "medical-icon", "map", "osmic", "fontisto",
    "flat-color-icons", "material-symbols", "solar", "lucide", "lucide-lab", "iconoir", "uil", "bx", "bxs", "boxicons",
    "ion", "cil", "carbon", "fluent", "fluent-color", "mingcute", "tdesign", "griddy-icons", "glyphs", "glyphs-poly",
    "keyline-icons", "reicon", "iconmind", "bi", "lineicons", "whh", "si-glyph", "picon", "clarity", "guidance",
    "meteocons", "wi", "mage", "stash", "pepicons-print", "pepicons-pencil", "f7", "fluent-mdl2", "icons8", "vaadin",
    "grommet-icons", "zmdi", "nrk", "dinkie-icons", "garden", "pixelarticons", "marketeq", "flat-ui", "raphael",
    "memory", "typcn", "entypo", "qlementine-icons", "basil", "iconamoon", "mynaui", "majesticons", "proicons",
)  # fmt: skip
# The demo's drawings are OpenMoji's and Font Awesome's; Line Awesome redraws the latter.
NEVER = ("openmoji", "fa", "fa-solid", "fa-regular", "fa6-solid", "fa6-regular", "fa7-solid", "fa7-regular", "la")

VALIDATION_SETS = ("emojione", "emojione-v1", "emojione-monotone", "iconoir", "lucide", "temaki", "mingcute")
HELD_BACK = 5  # every fifth concept's stamps, photos and clip art are for validation

# Folders of gcompris-qt-data's resource files whose pictures are named after what they show.
GCOMPRIS = (
    "lang", "categorization", "explore_world_animals", "explore_farm_animals", "erase", "instruments", "babymatch",
    "memory",
)  # fmt: skip
CLIPART_SKIPPED = (
    "shapes", "special", "computer/icons", "computer/buttons", "buttons", "logos", "signs_and_symbols/flags",
    "signs_and_symbols/led", "recreation/games/cards", "transportation/roadsigns", "geography",
)  # fmt: skip
STAMPS_SKIPPED = ("symbols", "town/flags", "town/roadsigns")

_FONT_SETS = {"mdi": "mdi", "mdi-outline": "mdi", "phosphor": "ph", "remix": "ri"}


def demo_drawings() -> dict[str, frozenset[str]]:
    """Return by set the base names of the icons that the demo draws, which are excluded from that set."""
    names_by_set: dict[str, set[str]] = {}
    for table in (SOLID_ICONS, OUTLINE_ICONS):
        for fonts in table.values():
            for font, names in fonts.items():
                if font in _FONT_SETS:
                    names_by_set.setdefault(_FONT_SETS[font], set()).update(base(name) for name in names.split())
    return {name: frozenset(bases) for name, bases in names_by_set.items()}
