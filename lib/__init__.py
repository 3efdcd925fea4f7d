"""Helpers under the notebooks. One module per floor; each imports only from floors above it:

errors · paths · folders · shards · schema · study · evidence · journal · hub · corpora ·
qwen_tokenizer · qwen_config · qwen · blocks · anatomy · loading · models · surgery · card ·
pruning · geometry · replay · batches · scoring · sweep · four_bit · teacher · training · healing ·
harness · evaluation · writing · bench · conditions · measure · shapes · memory · plan ·
model_tables · transitions · tables · comparisons · ablations · fates · other_texts · cost ·
families · judging · rules · further_rules · claims · plots · ablation_plots · distance_plots ·
text_plots · cost_plots · family_plots · section · check · export · publish · site · run
"""
