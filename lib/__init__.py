"""Helpers under the notebooks. One module per floor; each imports only from floors above it:

errors · paths · folders · shards · schema · study · records · provenance · listing · store ·
evidence · state · configuration · graph · planning · machine · progress · schedule · journal · hub
· corpora · qwen_tokenizer · qwen_config · qwen · blocks · anatomy · loading · models · surgery ·
card · pruning · geometry · replay · batches · scoring · sweep · four_bit · teacher · training ·
healing · harness · evaluation · writing · bench · conditions · measure · shapes · memory · workload
· plan · spent · rates · model_tables · text_tables · transitions · tables · comparisons · ablations
· fates · other_texts · cost · families · judging · rules · further_rules · claims · plots ·
ablation_plots · distance_plots · text_plots · cost_plots · family_plots · section · check · jobs ·
estimates · fleet · ladder · export · publish · edits · sides · pairing · chance ·
agreement · side_by_side · compare · site · run · worker
"""

import logging

# As soon as it is imported, it misses an optional kernel that is not used here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
