"""Codes and words with which services explain a refusal. Data for `workers.providers.http.refusals`.

Compared without case, blanks and punctuation (`refusals.plain`).
"""

from __future__ import annotations

# Parts of codes:
CONTENT_CODES = (
    *("contentpolicy", "contentfilter", "contentsafety", "contentmoderation", "contentsecurity"),
    *("contentviolation", "contentblocked", "sensitive", "moderation", "riskdetection", "riskcontrol"),
    *("datainspection", "invalidprompt", "safety", "unsafe", "nsfw", "responsibleai", "policyviolation"),
    *("prohibitedcontent", "forbiddencontent", "illegalcontent", "recitation", "blocklist", "inappropriate"),
    *("ipinfringement", "harmful", "promptblocked", "promptrejected", "promptattack", "jailbreak"),
    *("contentrejected", "contentrefused", "inputrejected", "greennet", "auditfailed", "censor"),
    *("moderated", "illegal", "guardrail", "highrisk"),
)
# Whole codes: finish reasons, block reasons, the `status` of an image server.
CONTENT_WORDS = frozenset({"refusal", "refused", "rejected", "blocked", "filtered", "flagged", "spii"})
LARGE_CODES = (
    *("contextlength", "contextwindow", "contextsize", "toolarge", "toolong", "abovemaxlength"),
    *("lengthexceeded", "toomanyimages", "tokenlimitexceeded", "maxtokensexceeded"),
)
QUOTA_CODES = ("quota", "overdue", "arrear", "billing", "ratelimit", "limitexceeded", "credit", "balance")
KEY_CODES = ("apikey", "authenticat", "unauthorized", "unauthorised", "permission", "accessdenied")
REQUEST_CODES = (
    *("unsupportedparameter", "unsupportedvalue", "unknownparameter", "missingrequired", "modelnotfound"),
    *("invalidmodel", "modelnotexist", "modelnotopen", "invalidsize", "unsupportedmodel", "extraforbidden"),
    *("invalidendpoint", "unsupportedcountry"),
)
# Parts of messages:
CONTENT_MESSAGES = (
    *("contentpolic", "contentfilter", "contentmanagement", "contentmoderation", "contentsafety"),
    *("contentwasblocked", "contentblocked", "contentviolat", "blockedbycontent", "blockedbysafety"),
    *("blockedduetosafety", "blockedduetocontent", "safetysystem", "safetyfilter", "safetysetting"),
    *("safetyreason", "safetypolic", "safetyguideline", "safetycheck", "usagepolic", "communityguideline"),
    *("moderation", "flagged", "nsfw", "notsafeforwork", "unsafe", "inappropriate", "prohibitedcontent"),
    *("prohibiteduse", "harmful", "offensive", "sensitivecontent", "sensitiveinformation", "sensitiveword"),
    *("sensitivematerial", "besensitive", "potentiallysensitive", "responsibleai", "datainspection"),
    *("riskdetection", "policyviolation", "violatesour", "violateour", "violatingour", "violationofour"),
    *("violatespolic", "violatescontent", "violatepolic", "violationofpolic", "violatesoneormore"),
    *("disallowed", "notallowedbyour", "illegalcontent", "explicitcontent", "sexualcontent"),
    *("violentcontent", "copyright", "forbiddencontent", "forbiddenword", "bannedword", "badword"),
    *("invalidprompt", "promptwasblocked", "promptblocked", "promptwasrejected", "promptisrejected"),
    *("promptrejected", "promptrefused", "promptwasrefused", "prompthasbeenrejected", "promptnotallowed"),
    *("promptisnotallowed", "refusedtheprompt", "rejectedtheprompt", "cannotgeneratethis"),
    *("moderated", "contentexistsrisk", "contentrisk", "strategyofcontent", "highrisk", "newsensitive"),
    *("violatesusage", "usageguideline", "guardrail", "responseblocked", "blockedoutput", "blockedinput"),
    *("patternisblocked", "敏感", "违规", "不合规", "违法", "不安全", "内容安全", "审核"),
)
# About the context length, whatever parameter is named beside it.
CONTEXT_MESSAGES = (
    *("contextlength", "contextwindow", "contextsize", "maximummodellength", "maxmodellen", "inputtokens"),
    *("inputtokencount", "maxmessagetokens", "maxnewtokensmustbe", "maximumcontext"),
)
LARGE_MESSAGES = (
    *("toolong", "toolarge", "reducethelength", "rangeofinputlength", "maximumnumberoftokens"),
    *("maximumlength", "maxlength", "characterlimit", "toomanytokens", "tokenlimit", "toomanyimages"),
    *("maximumnumberofimages", "exceedsthemaximum", "exceedthemaximum", "exceedsthelimit", "mostcharacters"),
    *("promptexceed", "promptlength", "inputexceed", "inputlength", "textexceed", "textlength"),
    *("tokensexceed", "maxsequencelength", "longerthan", "haveatmost", "hasatmost", "lengthlimit"),
    *("长度", "过长", "超长"),
)
# About the image of an edit.
SHAPE_MESSAGES = ("aspectratio", "toosmall", "dimension", "resolution", "pixels", "widthandheight")
KEY_MESSAGES = (
    *("invalidapikey", "incorrectapikey", "validapikey", "yourapikey", "apikeynot", "apikeyis", "apikeyhas"),
    *("noapikey", "missingapikey", "unauthorized", "unauthorised", "authenticationfail", "invalidtoken"),
    *("notauthenticated", "密钥", "鉴权"),
)
QUOTA_MESSAGES = (
    *("quota", "billing", "creditbalance", "insufficientcredit", "insufficientbalance", "insufficientfund"),
    *("outofcredit", "accountbalance", "ratelimit", "toomanyrequests", "arrear", "overdue", "yourplan"),
    *("runoutof", "欠费", "余额"),
)
INFRASTRUCTURE_MESSAGES = (
    *("permission", "youraccount", "thisaccount", "accountis", "accounthas", "accountnot", "subscription"),
    *("modelnotfound", "yourorganization", "yourproject", "yourregion"),
    *("nosuchparameter", "searchengine", "doesnotexist", "notsupportedwiththismodel"),
    *("unsupportedparameter", "unrecognized"),
    *("unknownparameter", "extrainputs", "fieldrequired", "outofmemory", "cuda", "traceback"),
    *("internalerror", "internalserver", "notloaded", "overloaded"),
)
# Fields that the configuration fills, not the model.
CONFIGURED_FIELDS = frozenset(
    {"model", "n", "size", "seed", "temperature", "max_tokens", "max_completion_tokens", "response_format"}
    | {"chat_template_kwargs", "quality", "watermark", "stream", "steps", "num_inference_steps", "api_key"}
    | {"true_cfg_scale", "guidance_scale", "negative_prompt", "engine", "authorization"}
)
