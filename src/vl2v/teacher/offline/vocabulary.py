"""The drawings of each class, selected by hand from the names in the packages.

OpenMoji has each drawing in colour and as line art. If both were used, a test drawing could be in the training set in
the other style. Each emoji is therefore used only once: the first of a class in colour, the second as line art, and so
on. For the same reason, no glyph is used in both icon styles: solid icons are from Font Awesome and Material Design,
outlined ones from Phosphor and Remix, and from Material Design and Font Awesome if their solid form is not used.
"""

from __future__ import annotations

STYLES = ("colour", "line", "solid_icon", "outline_icon")

# By prefix in the tables below: the file name of the font without its version, and the suffix of its glyph names.
FONTS = {
    "fa": ("fontawesome6-solid-webfont", ""),
    "fa-regular": ("fontawesome6-regular-webfont", ""),
    "mdi": ("materialdesignicons6-webfont", ""),
    "mdi-outline": ("materialdesignicons6-webfont", "-outline"),
    "phosphor": ("phosphor", ""),
    "remix": ("remixicon", "-line"),
}

EMOJI = {
    "animal": "🐵🐒🦍🦧🐶🐕🦮🐩🐺🦊🦝🐱🐈🦁🐯🐅🐆🐴🐎🦄🦓🦌🦬🐮🐂🐃🐄🐷🐖🐗🐏🐑🐐🐪🐫🦙🦒🐘🦣🦏"
    "🦛🐭🐁🐀🐹🐰🐇🐿🦫🦔🦇🐻🐨🐼🦥🦦🦨🦘🦡🐔🐓🐤🐦🐧🕊🦅🦆🦢🦉🦩🦚🦜🐸🐢🦎🐍🐳🐬🐟🐠",
    "building": "🏠🏡🏘🏚🏢🏣🏤🏥🏦🏨🏩🏪🏫🏬🏭🏯🏰🗼⛪🕌🛕🕍⛩🕋⛺🏛🛖🏟🎪💒",
    "clock": "🕐🕑🕒🕓🕔🕕🕖🕗🕘🕙🕚🕛🕜🕝🕞🕟🕠🕡🕢🕣🕤🕥🕦🕧⌚⌛⏰⏱⏲⏳🕰",
    "document": "📔📕📖📗📘📙📚📓📒📃📜📄📰🗞📑📝📁📂🗂📅📆🗒🗓📇📋🧾🗃",
    "electronic_device": "☎📞📟📠📱📲💻🖥🖨⌨🖱🖲📷📸📹🎥📽📺📻🎙🎧📡🕹🎮🔦🎤🎛🎚",
    "face": "😀😁😂😃😄😅😆😇😈😉😊😋😌😍😎😏😐😑😒😓😔😕😖😗😘😙😚😛😜😝😞😟😠😡😢😣😤😥😦😧"
    "😨😩😪😫😬😭😮😯😰😱😲😳😴😵😶😷🙁🙂🙃🙄🤐🤑🤒🤓🤔🤕🤠🤡🤢🤣🤤🤥🤧🤨🤩🤪🤫🤬🤭🤯",
    "food": "🍅🍆🍇🍈🍉🍊🍋🍌🍍🍎🍐🍑🍒🍓🥝🥥🥑🥔🥕🌽🌶🫑🥒🥬🥦🧄🧅🥜🍞🥐🥖🥨🥯🥞🧇🧀🍖🍗🥩🥓"
    "🍔🍟🍕🌭🥪🌮🌯🥙🧆🥚🍳🥘🍲🥣🥗🍿🧈🍱🍘🍙🍚🍛🍜🍝🍠🍢🍣🍤🍡🥟🍦🍨🍩🍪🎂🍰🧁🥧🍫🍬",
    "hand": "👋🤚🖐✋🖖👌🤌🤏✌🤞🫰🤟🤘🤙👈👉👆👇☝🫵👍👎✊👊🤛🤜👏🙌🫶👐🤲🤝🙏✍🫱🫲🫳🫴🫷🫸",
    "plant": "💐🌸🌹🥀🌺🌻🌼🌷🪻🌱🪴🌲🌳🌴🌵🌾🌿☘🍀🍁🍂🍃🪷🎄🎋🎍🪾🏵",
    "tool": "🔨🪓⛏⚒🛠🔧🪛🪚🪜🪝🧲🔩🗜🧰✂🖌🖍✏🖊🖋✒📏📐🔪🧹🪣🪠🪒🪡🧷🪏",
    "vehicle": "🚂🚃🚄🚅🚆🚇🚈🚊🚝🚞🚋🚌🚍🚎🚐🚑🚒🚓🚔🚕🚖🚗🚘🚙🛻🚚🚛🚜🏎🏍🛵🛺🚲🛴🚁🛩✈🛫🛬🚀🛸🛶⛵🚤🛥🛳⛴🚢🚟🚠🚡",
    "weather": "☀🌤⛅🌥☁🌦🌧🌨🌩⛈🌪🌫🌬🌈🌂☂☔⚡❄☃⛄🌡🌀🌅🌄💧🌞🌙",
}

SOLID_ICONS = {
    "animal": {
        "fa": "cat cow crow dog dove fish fish-fins frog hippo horse horse-head kiwi-bird locust mosquito otter"
        " shrimp spider worm",
        "mdi": "bat bee bird cow cat dog-side dolphin donkey duck elephant fish horse-variant horse-variant-fast"
        " kangaroo koala ladybug owl panda penguin pig rabbit rodent sheep snail snake tortoise unicorn-variant",
    },
    "building": {
        "fa": "building building-columns building-flag church city dungeon gopuram hospital hotel house house-chimney"
        " house-chimney-window house-flag igloo industry kaaba landmark landmark-dome mosque place-of-worship school"
        " school-flag store synagogue tent torii-gate vihara warehouse tower-observation",
        "mdi": "barn castle factory fire-station garage home home-modern lighthouse silo stadium-variant warehouse",
    },
    "clock": {
        "fa": "clock clock-rotate-left hourglass hourglass-end hourglass-half hourglass-start stopwatch stopwatch-20",
        "mdi": "alarm alarm-snooze clock clock-digital clock-fast clock-time-one clock-time-three clock-time-five"
        " clock-time-seven clock-time-nine clock-time-eleven timer timer-sand timer-sand-full watch watch-variant"
        " history av-timer",
    },
    "document": {
        "fa": "address-book book book-atlas book-bookmark book-open clipboard clipboard-list file file-lines"
        " file-invoice file-pdf file-image file-code file-excel file-word file-zipper folder folder-open newspaper"
        " note-sticky scroll receipt passport copy calendar calendar-days",
        "mdi": "book-variant book-open-variant book-open-page-variant book-alphabet notebook newspaper script-text"
        " file-document folder calendar text-box note-text clipboard-text",
    },
    "electronic_device": {
        "fa": "calculator camera camera-retro computer computer-mouse desktop display fax gamepad headphones headset"
        " keyboard laptop microphone microphone-lines mobile mobile-button mobile-retro mobile-screen phone print"
        " tablet tv video walkie-talkie radio satellite-dish",
        "mdi": "boombox camcorder camera cellphone desktop-classic deskphone ipod laptop monitor mouse"
        " nintendo-game-boy phone-classic radio router-wireless speaker television-classic video-vintage webcam",
    },
    "face": {
        "fa": "face-angry face-dizzy face-flushed face-frown face-frown-open face-grimace face-grin face-grin-beam"
        " face-grin-beam-sweat face-grin-hearts face-grin-squint face-grin-squint-tears face-grin-stars"
        " face-grin-tears face-grin-tongue face-grin-tongue-squint face-grin-tongue-wink face-grin-wide"
        " face-grin-wink face-kiss face-kiss-beam face-kiss-wink-heart face-laugh face-laugh-beam face-laugh-squint"
        " face-laugh-wink face-meh face-meh-blank face-rolling-eyes face-sad-cry face-sad-tear face-smile"
        " face-smile-beam face-smile-wink face-surprise face-tired",
    },
    "food": {
        "fa": "apple-whole bacon bowl-food bowl-rice bread-slice burger candy-cane carrot cheese cookie-bite"
        " drumstick-bite egg hotdog ice-cream pepper-hot pizza-slice stroopwafel cake-candles",
        "mdi": "baguette cake carrot cheese corn cupcake egg-fried food-croissant food-hot-dog food-steak food-turkey"
        " french-fries fruit-cherries fruit-citrus fruit-pear fruit-pineapple fruit-watermelon hamburger ice-cream"
        " ice-pop muffin noodles pasta pizza popcorn pretzel rice sausage taco",
    },
    "hand": {
        "fa": "hand hand-back-fist hand-fist hand-holding hand-holding-hand hand-peace hand-point-down hand-point-left"
        " hand-point-right hand-point-up hands hands-bubbles hands-clapping hands-holding hands-praying handshake"
        " thumbs-down thumbs-up hand-holding-heart hand-sparkles",
        "mdi": "hand-okay hand-peace hand-peace-variant hand-pointing-down hand-pointing-left hand-pointing-right"
        " hand-pointing-up hand-clap hand-back-right hand-front-left hands-pray",
    },
    "plant": {
        "fa": "tree leaf seedling cannabis clover plant-wilt spa wheat-awn holly-berry",
        "mdi": "barley cactus cannabis flower-poppy grass hops leaf leaf-maple palm-tree pine-tree rice forest nature",
    },
    "tool": {
        "fa": "hammer screwdriver screwdriver-wrench wrench toolbox trowel scissors paintbrush paint-roller brush broom"
        " bucket ruler ruler-combined ruler-horizontal ruler-vertical pencil pen pen-fancy pen-nib marker highlighter"
        " magnet compass-drafting eye-dropper eraser gavel",
        "mdi": "anvil axe saw-blade circular-saw hand-saw ladder pickaxe pitchfork pliers pipe-wrench rake screwdriver"
        " shovel sickle tape-measure box-cutter nail",
    },
    "vehicle": {
        "fa": "bicycle bus bus-simple cable-car car car-rear car-side caravan ferry helicopter jet-fighter motorcycle"
        " plane plane-up rocket sailboat ship shuttle-space taxi tractor train train-subway train-tram truck"
        " truck-field truck-medical truck-monster truck-pickup van-shuttle",
        "mdi": "atv bulldozer bus-double-decker car-convertible car-estate dump-truck excavator fire-truck"
        " forklift submarine tow-truck",
    },
    "weather": {
        "fa": "bolt cloud cloud-bolt cloud-moon cloud-moon-rain cloud-rain cloud-showers-heavy cloud-sun cloud-sun-rain"
        " droplet hurricane icicles moon rainbow smog snowflake snowman sun temperature-half tornado umbrella wind",
        "mdi": "clouds snowman snowflake-variant umbrella-closed white-balance-sunny weather-night flash water",
    },
}

OUTLINE_ICONS = {
    "animal": {
        "phosphor": "bird bug bug-beetle cat dog fish fish-simple horse",
        "remix": "bear-smile bug bug-2",
        "mdi-outline": "butterfly jellyfish rabbit-variant pig-variant spider bug",
    },
    "building": {
        "phosphor": "bank buildings factory house house-line house-simple storefront",
        "remix": "ancient-gate ancient-pavilion bank building building-2 building-3 building-4 community government"
        " home home-2 home-3 home-4 home-5 home-6 home-7 home-8 home-smile hospital hotel store store-2 store-3",
        "mdi-outline": "church mosque synagogue temple-buddhist temple-hindu home-variant office-building city-variant",
    },
    "clock": {
        "phosphor": "alarm clock clock-afternoon clock-clockwise clock-counter-clockwise hourglass hourglass-high"
        " hourglass-low hourglass-medium hourglass-simple hourglass-simple-high timer watch",
        "remix": "alarm time timer timer-2 history",
        "mdi-outline": "clock-time-two clock-time-four clock-time-six clock-time-eight clock-time-ten"
        " clock-time-twelve",
    },
    "document": {
        "phosphor": "address-book article book book-bookmark book-open books calendar clipboard clipboard-text file"
        " file-text files folder folder-open newspaper newspaper-clipping note notebook notepad receipt",
        "remix": "article book book-2 book-3 book-mark book-open book-read booklet calendar clipboard contacts-book"
        " draft file-list file-list-2 file-paper file-text folder-open health-book newspaper todo",
    },
    "electronic_device": {
        "phosphor": "calculator camera computer-tower desktop desktop-tower device-mobile device-mobile-camera"
        " device-tablet flashlight game-controller headphones headset keyboard laptop microphone monitor mouse phone"
        " printer radio television television-simple video-camera",
        "remix": "camera camera-2 cellphone computer gamepad headphone keyboard macbook mic mouse phone printer"
        " projector radio smartphone speaker tv vidicon webcam",
    },
    "face": {
        "phosphor": "smiley smiley-blank smiley-meh smiley-nervous smiley-sad smiley-wink smiley-x-eyes",
        "remix": "emotion emotion-2 emotion-happy emotion-laugh emotion-normal emotion-sad emotion-unhappy",
        "mdi-outline": "emoticon emoticon-angry emoticon-confused emoticon-cool emoticon-cry emoticon-dead"
        " emoticon-devil emoticon-excited emoticon-frown emoticon-happy emoticon-kiss emoticon-lol emoticon-neutral"
        " emoticon-sad emoticon-sick emoticon-tongue emoticon-wink",
    },
    "food": {
        "phosphor": "cake cookie pizza",
        "remix": "cake cake-2 cake-3",
        "mdi-outline": "bread-slice cake-variant candy chili-hot cookie egg food-apple food-drumstick fruit-grapes"
        " peanut",
        "fa-regular": "lemon",
    },
    "hand": {
        "phosphor": "hand hand-fist hand-grabbing hand-palm hand-pointing hand-waving hands-clapping handshake"
        " thumbs-down thumbs-up",
        "remix": "hand-coin hand-heart thumb-down thumb-up",
        "mdi-outline": "hand-back-left hand-front-right hand-extended hand-wave hand-heart handshake thumb-up"
        " thumb-down",
        "fa-regular": "hand-lizard hand-pointer hand-scissors hand-spock",
    },
    "plant": {
        "phosphor": "flower flower-lotus leaf tree tree-evergreen",
        "remix": "cactus leaf plant seedling",
        "mdi-outline": "clover flower flower-pollen flower-tulip pine-tree-variant seed spa sprout tree",
    },
    "tool": {
        "phosphor": "wrench scissors ruler paint-brush paint-brush-broad paint-brush-household paint-bucket"
        " paint-roller magnet magnet-straight knife eraser eyedropper pen pen-nib pen-nib-straight pencil"
        " pencil-line pencil-simple",
        "remix": "hammer tools scissors scissors-2 brush brush-2 brush-3 brush-4 paint paint-brush ruler ruler-2 pencil"
        " pencil-ruler ball-pen mark-pen quill-pen pen-nib eraser compasses-2",
        "mdi-outline": "toolbox",
    },
    "vehicle": {
        "phosphor": "airplane airplane-in-flight airplane-landing airplane-takeoff airplane-tilt bicycle boat bus car"
        " car-simple jeep rocket rocket-launch train train-regional train-simple truck",
        "remix": "bike bus bus-2 car caravan e-bike e-bike-2 flight-land flight-takeoff motorbike plane police-car"
        " roadster rocket rocket-2 sailboat ship ship-2 space-ship subway taxi train truck",
    },
    "weather": {
        "phosphor": "cloud cloud-fog cloud-lightning cloud-moon cloud-rain cloud-snow cloud-sun drop lightning moon"
        " moon-stars rainbow rainbow-cloud snowflake sun sun-dim sun-horizon thermometer umbrella wind",
        "remix": "cloud cloud-windy cloudy drizzle foggy hail haze heavy-showers mist moon moon-cloudy rainbow rainy"
        " showers snowy sun sun-cloudy thunderstorms tornado windy",
    },
}
