/* SPDX-License-Identifier: MIT */
/*
 * 128-bit powers of ten from 1 KB of tables.
 *
 * 10^k = 5^k 2^k, so the leading bits of 5^k are enough. With k = 28 j + r they are those of the
 * product of 5^(28 j), held in 128 bits rounded down, and 5^r, which is exact in 64. The product
 * falls short of the true leading bits by 0, 1 or 2 in the last place; two bits for each k say by
 * how much. The tables were computed with big integers, and the result was compared with them for
 * every k.
 */
#include "engine.h"

enum { JSON_POWER_STEP = 28, JSON_POWER_FIRST = -364 };

__extension__ typedef unsigned __int128 json_power_wide;

/* 5^(28 j) for j = -13 .. 11 */
static const sl_json_power json_power_coarse[] = {
    {0xE1AFA13AFBD14D6DU, 0x82189C09A3A1EC21U}, {0xE3E27A444D8D98B7U, 0xFD1B1B2308169B25U},
    {0xE61ACF033D1A45DFU, 0x6FB92487298E33BDU}, {0xE858AD248F5C22C9U, 0xD1B3400F8F9CFF68U},
    {0xEA9C227723EE8BCBU, 0x465E15A979C1CADCU}, {0xECE53CEC4A314EBDU, 0xA4F8BF5635246428U},
    {0xEF340A98172AACE4U, 0x86FB897116C87C34U}, {0xF18899B1BC3F8CA1U, 0xDC44E6C3CB279AC1U},
    {0xF3E2F893DEC3F126U, 0x5A89DBA3C3EFCCFAU}, {0xF64335BCF065D37DU, 0x4D4617B5FF4A16D5U},
    {0xF8A95FCF88747D94U, 0x75A44C6397CE912AU}, {0xFB158592BE068D2EU, 0xEED6E2F0F0D56712U},
    {0xFD87B5F28300CA0DU, 0x8BCA9D6E188853FCU}, {0x8000000000000000U, 0x0000000000000000U},
    {0x813F3978F8940984U, 0x4000000000000000U}, {0x82818F1281ED449FU, 0xBFF8F10E7A8921A4U},
    {0x83C7088E1AAB65DBU, 0x792667C6DA79E0FAU}, {0x850FADC09923329EU, 0x03E2CF6BC604DDB0U},
    {0x865B86925B9BC5C2U, 0x0B8A2392BA45A9B2U}, {0x87AA9AFF79042286U, 0x90FB44D2F05D0842U},
    {0x88FCF317F22241E2U, 0x441FECE3BDF81F03U}, {0x8A5296FFE33CC92FU, 0x82BD6B70D99AAA6FU},
    {0x8BAB8EEFB6409C1AU, 0x1AD089B6C2F7548EU}, {0x8D07E33455637EB2U, 0xDB0B487B6423E1E8U},
    {0x8E679C2F5E44FF8FU, 0x570F09EAA7EA7648U},
};

/* 5^r for r = 0 .. 27 */
static const uint64_t json_power_fine[] = {
    0x1U,
    0x5U,
    0x19U,
    0x7DU,
    0x271U,
    0xC35U,
    0x3D09U,
    0x1312DU,
    0x5F5E1U,
    0x1DCD65U,
    0x9502F9U,
    0x2E90EDDU,
    0xE8D4A51U,
    0x48C27395U,
    0x16BCC41E9U,
    0x71AFD498DU,
    0x2386F26FC1U,
    0xB1A2BC2EC5U,
    0x3782DACE9D9U,
    0x1158E460913DU,
    0x56BC75E2D631U,
    0x1B1AE4D6E2EF5U,
    0x878678326EAC9U,
    0x2A5A058FC295EDU,
    0xD3C21BCECCEDA1U,
    0x422CA8B0A00A425U,
    0x14ADF4B7320334B9U,
    0x6765C793FA10079DU,
};

/* two bits for each k from JSON_POWER_FIRST on: what the product lacks */
static const uint64_t json_power_lack[] = {
    0x1044051400045410U, 0x5050001010000000U, 0x4540500014000454U, 0x0000040045555445U,
    0x1005000000000000U, 0x5414510541500410U, 0x5515545145145410U, 0x0041005454440500U,
    0x0100540000514040U, 0x5155400100000504U, 0x0015501055441140U, 0x0000000000000110U,
    0x0000000000000000U, 0x4100004004040000U, 0x4000000000050000U, 0x4140150401555054U,
    0x6959541115141105U, 0x00000440A6966596U, 0x6591555554000000U, 0x0014100100105555U,
    0x1105550144155004U, 0x0051041155500510U,
};

sl_json_power sl_json_power10(int k)
{
    unsigned place = (unsigned)(k - JSON_POWER_FIRST);
    sl_json_power coarse = json_power_coarse[place / JSON_POWER_STEP];
    uint64_t fine = json_power_fine[place % JSON_POWER_STEP];
    json_power_wide low = (json_power_wide)coarse.low * fine;
    json_power_wide high = (json_power_wide)coarse.high * fine + (uint64_t)(low >> 64);
    /* 192 bits: high, then the lower half of low; the top bit is moved to the top of 128 */
    int zeros = (uint64_t)(high >> 64) != 0 ? __builtin_clzll((uint64_t)(high >> 64)) : 64;
    json_power_wide top = high;
    if (zeros != 0)
        top = high << zeros | (zeros == 64 ? (uint64_t)low : (uint64_t)low >> (64 - zeros));
    top += json_power_lack[place / 32] >> (place % 32 * 2) & 3;
    return (sl_json_power){(uint64_t)(top >> 64), (uint64_t)top};
}
